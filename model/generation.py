"""Block-by-block generation for many requests at once: what opens a request and steps it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from model.attention import arflow_mask
from model.audiocalm import AudioCALM
from model.batch import check_speaker
from model.block_step import LocalBlockStep, ThinBlockStep
from model.cpu_backbone import inference_backbone
from model.experts import route_rows
from model.flow import TimeGrid
from model.flow_schedule import FlowSchedule, flow_schedule
from model.kv_cache import KeysValues, PrefillAttention, aligned, filled_cache
from model.sampling import (
    BlockOutput,
    GenerationRequest,
    GenerationState,
    SamplingOptions,
)
from model.sequence import PADDING, document_layout

__all__ = ["BlockOutput", "GenerationRequest", "GenerationState", "Sampler", "SamplingOptions"]


@runtime_checkable
class SteppedBlock(Protocol):
    """One block of some requests, ready to be computed."""

    def run(self) -> list[BlockOutput]:
        """The block of every request; their states move on."""


_KEPT = 16
"""Solver paths and null prefixes kept; a server sees a handful."""


class Sampler:
    """Generates with one model; holds no state of any request.

    The model's weights are read at the start and must not change while it is used.

    Attributes:
        backbone: What runs in place of the model's own.
    """

    def __init__(self, model: AudioCALM) -> None:
        self.model = model
        self._schedules: dict[tuple[TimeGrid, int], FlowSchedule] = {}
        self._nulls: dict[tuple[tuple[int, ...], bool], KeysValues] = {}
        self.backbone = inference_backbone(model.backbone)

    @torch.inference_mode()
    def open(self, request: GenerationRequest) -> GenerationState:
        """State of a request before its first block: its prefix and prompt are in the cache.

        Raises:
            ValueError: If the request does not suit the model.
        """
        prompt = self._prompt(request)
        state = self._prefill(request, prompt)
        self._schedule(request.options)
        return state

    @torch.no_grad()
    def step(self, states: Sequence[GenerationState]) -> list[BlockOutput]:
        """The next block of every request, in order.

        Requests of any mix may step together; those with equal solver work share their passes.

        Raises:
            ValueError: If a request is finished, or given twice.
        """
        if any(state.is_done for state in states):
            raise ValueError("a finished request cannot step; leave it out")
        if len({id(state) for state in states}) != len(states):
            raise ValueError("a request is given twice in one step")
        schedules = [self._schedule(state.request.options) for state in states]
        groups: dict[int, list[int]] = {}
        for index, schedule in enumerate(schedules):
            groups.setdefault(len(schedule), []).append(index)
        outputs: dict[int, BlockOutput] = {}
        for members in groups.values():
            chosen = [states[index] for index in members]
            with torch.inference_mode():
                step = self._block_step(chosen, [schedules[index] for index in members])
                blocks = step.run()
            for member, block in zip(members, blocks, strict=True):
                # Callers get ordinary tensors.
                outputs[member] = dataclasses.replace(block, latents=block.latents.clone())
        return [outputs[index] for index in range(len(states))]

    def close(self, state: GenerationState) -> None:
        """End a request before its last block, for good."""
        state.is_done = True

    def generate(self, request: GenerationRequest) -> Iterator[BlockOutput]:
        """The blocks of one request."""
        state = self.open(request)
        try:
            while not state.is_done:
                yield self.step([state])[0]
        finally:
            self.close(state)

    def _block_step(
        self, states: list[GenerationState], schedules: list[FlowSchedule]
    ) -> SteppedBlock:
        is_local = self.model.config.head.kind == "local"
        step = LocalBlockStep if is_local else ThinBlockStep
        return step(self.model, self.backbone, states, schedules)

    def _schedule(self, options: SamplingOptions) -> FlowSchedule:
        """What depends on flow time alone, computed once for requests with equal options."""
        path = (options.time_grid, options.num_flow_steps)
        schedule = self._schedules.pop(path, None)
        if schedule is None:
            schedule = flow_schedule(self.model, *path)
        _keep(self._schedules, path, schedule)
        return schedule

    def _prompt(self, request: GenerationRequest) -> Float[Tensor, "frames latent_dim"]:
        config = self.model.config
        if request.prompt_latents is None:
            return torch.zeros(0, config.latent_dim, device=self.model.device)
        frames, latent_dim = request.prompt_latents.shape
        if latent_dim != config.latent_dim:
            raise ValueError(
                f"prompt_latents are {latent_dim} wide and the model's {config.latent_dim}"
            )
        if frames < config.frames_per_block:
            raise ValueError(
                f"prompt_latents have {frames} frames; a prompt needs at least one block of "
                f"{config.frames_per_block}"
            )
        whole = frames // config.frames_per_block * config.frames_per_block
        return self.model.normalise(request.prompt_latents[-whole:].to(self.model.device))

    def _prefill(
        self, request: GenerationRequest, prompt: Float[Tensor, "frames latent_dim"]
    ) -> GenerationState:
        config = self.model.config
        prefixes = [request.token_ids, request.null_ids][: 1 + request.is_guided]
        rows = [self._checked_ids(ids, request, is_null=i > 0) for i, ids in enumerate(prefixes)]
        longest = max(len(row) for row in rows)
        padding = tuple(longest - len(row) for row in rows)
        if len(rows) > 1 and not len(prompt) and config.speaker_id not in request.null_ids:
            # Of the null prefix nothing depends on the request.
            alone = self._read(rows[:1], prompt, request.uses_expert, request.speaker)
            null = self._read_null(request.null_ids, request.uses_expert)
            kept = aligned([alone, null])
        else:
            kept = self._read(rows, prompt, request.uses_expert, request.speaker)
        cache = filled_cache(kept, padding, longest, config.frames_per_block, config.window_blocks)
        return GenerationState(
            request,
            cache,
            generator=torch.Generator().manual_seed(request.seed),
            block_index=cache.num_blocks,
        )

    def _read_null(self, ids: tuple[int, ...], uses_expert: bool) -> KeysValues:
        """`_read` of a null prefix without a voice; requests share it."""
        known = self._nulls.pop((ids, uses_expert), None)
        if known is None:
            nothing = torch.zeros(0, self.model.config.latent_dim, device=self.model.device)
            known = self._read([torch.tensor(ids)], nothing, uses_expert, None)
        _keep(self._nulls, (ids, uses_expert), known)
        return known

    def _read(
        self,
        rows: list[Tensor],
        prompt: Float[Tensor, "frames latent_dim"],
        uses_expert: bool,
        speaker: Tensor | None,
    ) -> KeysValues:
        """Keys and values of prefixes and prompt.

        The rows end together; shorter ones are padded on the left.
        """
        model, config = self.model, self.model.config
        longest = max(len(row) for row in rows)
        padding = [longest - len(row) for row in rows]
        layout = document_layout(longest, len(prompt), 0, config.frames_per_block)
        token_ids = torch.zeros(len(rows), longest, dtype=torch.int64)
        document = torch.zeros(len(rows), len(layout.segment), dtype=torch.int32)
        for index, (row, pad) in enumerate(zip(rows, padding, strict=True)):
            token_ids[index, pad:] = row
            document[index, :pad] = PADDING
        mask = arflow_mask(
            document,
            layout.segment.expand(len(rows), -1),
            layout.block.expand(len(rows), -1),
            layout.copy.expand(len(rows), -1),
            config.window_blocks,
        )
        position = (layout.position - torch.tensor(padding)[:, None]).clamp_min(0)
        if speaker is not None:
            speaker = speaker.to(model.device).expand(len(rows), 1, -1)
        embeddings = torch.cat(
            [
                model.embed_prefix(token_ids.to(model.device), speaker),
                model.embed_clean(prompt).expand(len(rows), -1, -1),
            ],
            dim=1,
        )
        attention = PrefillAttention(mask.to(model.device))
        route = route_rows([uses_expert], embeddings.shape[1], model.device)
        self.backbone(embeddings, position.to(model.device), attention, route)
        return attention.kept()

    def _checked_ids(
        self, ids: tuple[int, ...], request: GenerationRequest, is_null: bool
    ) -> Tensor:
        config = self.model.config
        if min(ids) < 0 or max(ids) >= config.backbone.vocab_size:
            raise ValueError(
                f"token ids reach from {min(ids)} to {max(ids)}, and the vocabulary has "
                f"{config.backbone.vocab_size}; the tokenizer is not the model's"
            )
        token_ids = torch.tensor(ids)
        drops_speaker = is_null and config.speaker_id not in ids
        check_speaker(token_ids, None if drops_speaker else request.speaker, config)
        return token_ids


def _keep(known: dict[Any, Any], key: Any, value: Any) -> None:
    """The last used comes last; the first is forgotten."""
    known[key] = value
    while len(known) > _KEPT:
        del known[next(iter(known))]
