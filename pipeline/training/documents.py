"""A clip of the shards as one training document: every random choice of training is made here.

The choices depend on the seed and on the position in the stream alone, never on the worker, the
step's other clips or what was read before. Planning reads the text of a clip and fixes its length;
building reads its latents.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.config import ModelConfig
from model.flow import sample_flow_time
from model.sequence import Document, document_length, has_open_end
from model.tempo import position_rate
from model.text import Prompt, Tokenizer, null_ids, num_word_tokens, prompt_ids
from model.timebase import Timebase, num_blocks
from pipeline.errors import IncompleteError
from pipeline.training.alignment import Alignment
from pipeline.training.order import StreamPosition, mixed_seed
from pipeline.training.settings import FeedSettings
from pipeline.training.shards import TrainShards

_MIN_STD = 1e-3
"""Floor of a channel's standard deviation, as in `AudioCALM.normalise`."""
_MARGIN = 64
"""Tokens that a prompt may have beyond the longest text of its clip: speaker, audio, duration."""
_NUMBER_TOKENS = 8
"""Room for a tokenizer that spells the shorter duration of a crop with more tokens."""


@dataclass(frozen=True)
class Plan:
    """Plan of a document, made before its latents are read.

    Attributes:
        position: Position in the stream.
        row: The clip's row in the index.
        token_ids: Tokens of the prefix.
        voice: Index row whose voice conditions it; None for no voice.
        start: First frame.
        stop: Frame after the last.
        length: Number of positions that it takes in a row.
        durations: Latent frames of every transcript token at the end of the prefix; empty does not
            pace the audio.
        rate: Rotary positions from one frame to the next where no words pace them.
        is_cropped: Whether the clip is longer than a row has room for.
    """

    position: int
    row: dict[str, Any]
    token_ids: list[int]
    voice: int | None
    start: int
    stop: int
    length: int
    durations: tuple[float, ...]
    rate: float
    is_cropped: bool


class DocumentSampler:
    """Makes the document of any stream position.

    Args:
        shards: Source of clips and voices.
        settings: Dropout, noise, length of a row.
        config: Configuration of the model, for block size and expert labels.
        tokenizer: Encodes the prompts.
        seed: The run's seed.
        student_times: Flow times to take one of, in place of the settings' distribution.
        alignment: Durations of the transcript tokens, for a model that paces speech; without them
            documents can be planned and not built.
    """

    def __init__(
        self,
        shards: TrainShards,
        settings: FeedSettings,
        config: ModelConfig,
        tokenizer: Tokenizer,
        seed: int,
        student_times: Tensor | None = None,
        alignment: Alignment | None = None,
    ) -> None:
        self._alignment = alignment if config.paces_speech else None
        self._student_times = student_times
        self._shards = shards
        self._settings = settings
        self._config = config
        self._tokenizer = tokenizer
        self._seed = seed
        self._mean = torch.from_numpy(shards.latent_mean)
        self._std = torch.from_numpy(shards.latent_scale(settings.importance_power)).clamp_min(
            _MIN_STD
        )
        self._channel_std = torch.from_numpy(shards.latent_std) / self._std
        self._silence = self._normalise(torch.from_numpy(shards.silence))
        codec = shards.codec
        self._timebase = Timebase(codec["sample_rate"], codec["hop_length"])
        self._voices = _Voices(shards) if config.speaker_id is not None else None

    def rows_by_modality(self) -> dict[str, NDArray[np.int64]]:
        """Index rows of every modality whose text leaves room for at least one block."""
        modality = self._shards.column("modality")
        fits = self._shards.column("text_bytes") + _MARGIN + self._block_length <= (
            self._settings.pack_length
        )
        return {
            str(name): np.flatnonzero((modality == name) & fits) for name in np.unique(modality)
        }

    def plan(self, place: StreamPosition) -> Plan:
        """Prompt, voice and frames of the document at a position."""
        row = self._shards.row(place.row)
        facts = self._shards.facts(row)
        generator = self._generator(place.position, "plan")
        prompt = self._prompt(row, facts, generator)
        voice = self._voice(place.row, generator)
        is_conditioned = _draw(generator) >= self._settings.condition_dropout
        has_words, settings = bool(row["has_transcript"]), self._settings
        share = settings.speech_duration_share if has_words else settings.duration_share
        if _draw(generator) < share:
            prompt = replace(prompt, duration_s=self._duration_s(row["num_frames"]))
        if not is_conditioned:
            voice = None
        token_ids = self._token_ids(prompt, voice, is_conditioned)
        start, stop = self._span(row, len(token_ids), _draw(generator))
        if prompt.duration_s is not None and stop - start < row["num_frames"]:
            # Words that were cut off are not said in the time that is left.
            duration_s = None if has_words else self._duration_s(stop - start)
            prompt = replace(prompt, duration_s=duration_s)
            token_ids = self._token_ids(prompt, voice, is_conditioned)
        block = self._config.frames_per_block
        length = len(token_ids) + num_blocks(stop - start, block) * self._block_length
        durations: tuple[float, ...] = ()
        if self._alignment is not None and has_words and is_conditioned:
            num_words = num_word_tokens(prompt, self._tokenizer)
            durations = self._alignment.of(place.row, num_words)
        rate = position_rate(prompt, self._config, self._timebase) if is_conditioned else 1.0
        return Plan(
            place.position,
            row,
            token_ids,
            voice,
            start,
            stop,
            length,
            durations,
            rate,
            is_cropped=row["num_frames"] - (stop - start) >= block,
        )

    def build(self, plan: Plan) -> Document:
        """The document of a plan, noise included."""
        settings, row = self._settings, plan.row
        if self._config.paces_speech and self._alignment is None:
            raise ValueError("a model that paces speech needs the alignment of its clips")
        generator = self._generator(plan.position, "noise")
        latents = self._latents(plan, generator)
        copies, blocks = settings.num_noisy_copies, len(latents) // self._config.frames_per_block
        is_noised = _draw(generator) < settings.history_noise_share
        scale = _draw(generator) * settings.history_noise_max * is_noised
        voice = None if plan.voice is None else self._shards.embeddings.of(plan.voice)
        return Document(
            token_ids=torch.tensor(plan.token_ids),
            latents=latents,
            history=latents + scale * self._channel_std * _normal(latents.shape, generator),
            noise=_normal((copies, *latents.shape), generator),
            flow_time=self._flow_time(copies, blocks, generator),
            num_valid_frames=plan.stop - plan.start,
            modality=row["modality"],
            uses_expert=self._config.expert.routes(
                row["modality"], is_singing=bool(row["is_singing"])
            ),
            speaker=None if voice is None else torch.from_numpy(voice),
            has_stop=plan.stop == row["num_frames"],
            durations=plan.durations,
            rate=plan.rate,
        )

    def _flow_time(self, copies: int, blocks: int, generator: torch.Generator) -> Tensor:
        settings, times = self._settings, self._student_times
        if times is not None:
            return times[torch.randint(len(times), (copies, blocks), generator=generator)]
        return sample_flow_time(
            copies,
            blocks,
            generator,
            mean=settings.flow_time_mean,
            std=settings.flow_time_std,
            uniform_share=settings.uniform_time_share,
        )

    @property
    def _block_length(self) -> int:
        """Positions of one block in a row, noisy copies included where they take any."""
        config, copies = self._config, self._settings.num_noisy_copies
        return document_length(0, config.frames_per_block, copies, config.head.kind)

    def _generator(self, position: int, purpose: str) -> torch.Generator:
        return torch.Generator().manual_seed(mixed_seed(self._seed, purpose, position))

    def _normalise(self, latents: Tensor) -> Tensor:
        return (latents - self._mean) / self._std

    def _duration_s(self, num_frames: int) -> float:
        return self._timebase.frames_duration_s(num_frames)

    def _prompt(
        self, row: dict[str, Any], facts: dict[str, Any], generator: torch.Generator
    ) -> Prompt:
        descriptions = facts.get("descriptions") or [""]
        try:
            return Prompt(
                description=descriptions[int(_draw(generator) * len(descriptions))],
                transcript=facts.get("transcript"),
                language=facts.get("language"),
                is_singing=bool(row["is_singing"]),
            )
        except ValueError as error:
            raise IncompleteError(
                f"clip {row['key']} in {self._shards.folder.uri} has no usable prompt: {error}; "
                "run `audiocalm describe` and `audiocalm shard` again"
            ) from error

    def _voice(self, number: int, generator: torch.Generator) -> int | None:
        """Row of another clip of the speaker if there is one; None if dropped or unknown."""
        which, is_dropped = _draw(generator), _draw(generator) < self._settings.speaker_dropout
        return None if self._voices is None or is_dropped else self._voices.of(number, which)

    def _token_ids(self, prompt: Prompt, voice: int | None, is_conditioned: bool) -> list[int]:
        if not is_conditioned:
            return null_ids(self._tokenizer)
        return prompt_ids(prompt, self._tokenizer, has_speaker=voice is not None)

    def _span(self, row: dict[str, Any], num_text: int, draw: float) -> tuple[int, int]:
        """Frames to train on: all, or whole blocks that fit the row.

        A clip with words keeps its beginning, where its words begin; another is cut at random.
        What ends when a request says is cut to whole blocks: a last block filled up with silence
        would teach that any block may be the last.
        """
        num_frames, block = int(row["num_frames"]), self._config.frames_per_block
        room = self._settings.pack_length - num_text - _NUMBER_TOKENS
        limit, total = room // self._block_length, num_blocks(num_frames, block)
        if not has_open_end(row["modality"], bool(row["has_transcript"])):
            total = max(1, num_frames // block)
        if row["has_transcript"] or total <= limit:
            return 0, min(num_frames, min(limit, total) * block)
        first = int(draw * (total - limit + 1))
        return first * block, min(num_frames, (first + limit) * block)

    def _latents(self, plan: Plan, generator: torch.Generator) -> Tensor:
        """A draw of the posterior, normalised, padded to whole blocks with encoded silence."""
        stored = self._shards.latents(plan.row)
        mean = torch.from_numpy(stored.mean[plan.start : plan.stop])
        std = torch.from_numpy(stored.log_std[plan.start : plan.stop]).exp()
        latents = self._normalise(mean + std * _normal(mean.shape, generator))
        padding = -len(latents) % self._config.frames_per_block
        return torch.cat([latents, self._silence.expand(padding, -1)])


class _Voices:
    """Rows by speaker, without one Python object for each speaker."""

    def __init__(self, shards: TrainShards) -> None:
        speakers = shards.index["speaker"].fill_null("").combine_chunks().dictionary_encode()
        names, codes = speakers.dictionary, speakers.indices.to_numpy()
        has_voice = shards.embeddings.widths > 0
        # A clip of an unknown speaker shares its voice with no other clip.
        is_known = codes != names.index("").as_py()
        self._codes = np.where(has_voice & is_known, codes, np.where(has_voice, -1, -2))
        self._order = np.argsort(self._codes, kind="stable")
        self._sorted = self._codes[self._order]

    def of(self, number: int, draw: float) -> int | None:
        """A row with the voice of a row's speaker; the row itself only if there is no other.

        Args:
            number: Row that needs a voice.
            draw: Uniform in [0, 1): which one.
        """
        code = self._codes[number]
        if code < 0:
            return number if code == -1 else None
        begin, end = np.searchsorted(self._sorted, [code, code + 1])
        others = self._order[begin:end]
        others = others[others != number]
        return int(others[int(draw * len(others))]) if len(others) else number


def _draw(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator))


def _normal(shape: tuple[int, ...] | torch.Size, generator: torch.Generator) -> Tensor:
    return torch.empty(shape).normal_(generator=generator)
