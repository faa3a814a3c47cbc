"""Packed batches of any step: the same documents for every number of workers.

A step takes the next `documents_per_step` positions of the stream, packs their documents into rows
and deals the rows to the workers. The part of each worker depends on the world size; the documents
of the step do not.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from model.batch import TrainingBatch, pack
from model.config import MODALITIES, ModelConfig
from model.sequence import Document
from model.text import Tokenizer, null_ids
from pipeline.training.alignment import Alignment
from pipeline.training.documents import DocumentSampler, Plan
from pipeline.training.mixture import weighted_groups
from pipeline.training.order import StreamOrder
from pipeline.training.settings import FeedSettings
from pipeline.training.shards import TrainShards


@dataclass(frozen=True)
class StepBatch:
    """One worker's part of a step.

    Attributes:
        step: Number of the step, from 0.
        micro_batches: Micro-batches, equally many on every worker.
        num_documents: Documents of this worker.
        num_cropped: Documents of this worker cut to the row length.
        num_positions: Positions of this worker that hold a document.
        clips: Keys of the clips in every micro-batch.
        is_skipped: Whether the settings skip this step; it has no micro-batches then.
        null_batches: The micro-batches under the null prefix, where a student is trained.
    """

    step: int
    micro_batches: list[TrainingBatch]
    num_documents: int
    num_cropped: int
    num_positions: int
    clips: list[list[str]] = dataclasses.field(default_factory=list)
    is_skipped: bool = False
    null_batches: list[TrainingBatch] = dataclasses.field(default_factory=list)


class Feed:
    """The batches of one worker.

    Args:
        shards: Training clips.
        settings: Sizes, shares and noise.
        config: The model's configuration.
        tokenizer: Encodes the prompts.
        seed: The run's seed.
        rank: This worker's rank.
        world_size: Workers that share every step.
        student_times: Flow times of a student; its batches come under the null prefix too.
        alignment: Durations of the transcript tokens, for a model that paces speech; without them
            steps can be planned and no batch be built.

    Raises:
        ValueError: If the shards hold no clip to train on.
        SettingsError: If a weight matches no clip, or is too small for its modality to be drawn.
    """

    def __init__(
        self,
        shards: TrainShards,
        settings: FeedSettings,
        config: ModelConfig,
        tokenizer: Tokenizer,
        seed: int,
        *,
        rank: int = 0,
        world_size: int = 1,
        student_times: Tensor | None = None,
        alignment: Alignment | None = None,
    ) -> None:
        self._settings = settings
        self._null_ids = None if student_times is None else null_ids(tokenizer)
        self._config = config
        self._rank = rank
        self._world_size = world_size
        self._sampler = DocumentSampler(
            shards, settings, config, tokenizer, seed, student_times, alignment
        )
        rows = self._sampler.rows_by_modality()
        self.num_left_out = len(shards) - sum(map(len, rows.values()))
        weights = {"language": settings.language_weights, "corpus": settings.corpus_weights}
        columns = {name: shards.column(name) for name in weights}
        groups = weighted_groups(rows, columns, weights)
        self._order = StreamOrder(groups, settings.modality_weights, seed)

    @property
    def shares(self) -> dict[str, float]:
        """Share of every modality in the stream."""
        return self._order.shares

    @property
    def unheard(self) -> dict[str, float]:
        """Shares of modalities that are too small to be drawn at all."""
        return self._order.unheard

    def rows(self, step: int) -> list[list[Plan]]:
        """The packed rows of a step, of all workers together."""
        places = self._order.step(step, self._settings.documents_per_step)
        plans = [self._sampler.plan(place) for place in places]
        return pack_rows(plans, self._settings.pack_length)

    def batch(self, step: int) -> StepBatch:
        """This worker's part of a step."""
        if step in self._settings.skip_steps:
            return StepBatch(step, [], 0, 0, 0, is_skipped=True)
        rows = self.rows(step)
        size = self._settings.rows_per_micro_batch
        num_micro = -(-len(rows) // (size * self._world_size))
        own = rows[self._rank :: self._world_size]
        own += [[] for _ in range(num_micro * size - len(own))]
        plans = [plan for row in own for plan in row]
        parts = [own[begin : begin + size] for begin in range(0, len(own), size)]
        documents = [[[self._sampler.build(p) for p in row] for row in part] for part in parts]
        null = self._null_ids
        null_documents = (
            []
            if null is None
            else [
                [[document.without_condition(null) for document in row] for row in part]
                for part in documents
            ]
        )
        return StepBatch(
            step=step,
            micro_batches=[self._pack(part) for part in documents],
            null_batches=[self._pack(part) for part in null_documents],
            num_documents=len(plans),
            num_cropped=sum(plan.is_cropped for plan in plans),
            num_positions=sum(plan.length for plan in plans),
            clips=[[str(plan.row["key"]) for row in part for plan in row] for part in parts],
        )

    def batches(self, start: int, stop: int) -> Generator[StepBatch, None, None]:
        """The parts of steps `start` to `stop`, prepared ahead in a background thread.

        Close the iterator to end the thread early. Exceptions of the thread are raised here.
        """
        steps = iter(range(start, stop))
        with ThreadPoolExecutor(1, thread_name_prefix="feed") as pool:
            ahead = itertools.islice(steps, self._settings.prefetch_steps)
            pending = deque(pool.submit(self.batch, step) for step in ahead)
            try:
                while pending:
                    batch = pending.popleft().result()
                    pending.extend(
                        pool.submit(self.batch, step) for step in itertools.islice(steps, 1)
                    )
                    yield batch
            finally:
                for future in pending:
                    future.cancel()

    def _pack(self, rows: Sequence[Sequence[Document]]) -> TrainingBatch:
        is_empty = torch.tensor([not row for row in rows])
        filler = _filler(self._config)
        length = self._settings.pack_length
        batch = pack([row or [filler] for row in rows], self._config, length)
        if not is_empty.any():
            return batch
        # An empty row takes part in every collective and in no sum.
        keep = ~is_empty[:, None]
        return dataclasses.replace(
            batch,
            flow_mask=batch.flow_mask & keep,
            stop_mask=batch.stop_mask & keep,
        )


def pack_rows(plans: Sequence[Plan], pack_length: int) -> list[list[Plan]]:
    """Documents in rows: the longest first, each into the first row with room.

    Documents that use the expert end up adjacent; the result depends on the set of plans alone.
    """
    rows: list[list[Plan]] = []
    room: list[int] = []
    for plan in sorted(plans, key=lambda plan: (-plan.length, plan.position)):
        fitting = (index for index, free in enumerate(room) if free >= plan.length)
        index = next(fitting, None)
        if index is None:
            rows.append([])
            room.append(pack_length)
            index = len(rows) - 1
        rows[index].append(plan)
        room[index] -= plan.length
    for row in rows:
        row.sort(key=lambda plan: (MODALITIES.index(plan.row["modality"]), plan.position))
    return rows


def _filler(config: ModelConfig) -> Document:
    """The smallest document, for rows that hold none."""
    latents = torch.zeros(config.frames_per_block, config.latent_dim)
    return Document(
        token_ids=torch.zeros(1, dtype=torch.int64),
        latents=latents,
        history=latents,
        noise=latents[None],
        flow_time=torch.zeros(1, 1),
        num_valid_frames=1,
        modality=MODALITIES[0],
        uses_expert=False,
        speaker=None,
    )
