"""Block-by-block generation for many requests at once: open, step, close."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from model.audiocalm import AudioCALM
from model.backbone import BackboneLike
from model.batch import check_prefix
from model.flow import TimeGrid
from model.inference.block import Block
from model.inference.cache import KeysValues, KVCache
from model.inference.generation import (
    BlockOutput,
    GenerationRequest,
    GenerationState,
    SamplingOptions,
    advance,
)
from model.inference.prefill import aligned, read_prefix
from model.inference.schedule import FlowSchedule, flow_schedule
from model.sequence import AudioPositions

_LOG_PACE_RANGE = (math.log(0.1), math.log(100.0))
"""Frames a transcript token may take by prediction; an untrained head must not overflow."""
_NUM_REMEMBERED = 16
"""Schedules and null prefixes that a sampler keeps; a server meets a handful."""


class Sampler:
    """Generates with one model, whose weights must not change while it is used.

    Args:
        model: The model.
        backbone: A faster form of its backbone (`model.fast`); None runs the backbone itself.
        cache: Memory of all requests; None makes one that grows with demand.
    """

    def __init__(
        self,
        model: AudioCALM,
        backbone: BackboneLike | None = None,
        cache: KVCache | None = None,
    ) -> None:
        self.model = model
        self.backbone: BackboneLike = model.backbone if backbone is None else backbone
        self.cache = cache or KVCache(model.config, model.device, model.dtype)
        self._schedules: dict[tuple[TimeGrid, int], FlowSchedule] = {}
        self._nulls: dict[tuple[tuple[int, ...], bool], KeysValues] = {}

    @torch.inference_mode()
    def open(self, request: GenerationRequest) -> GenerationState:
        """State of a request before its first block, its prefix and prompt in the cache.

        It holds rows of the cache until its last block, or until `close`.

        Raises:
            ValueError: If the request does not suit the model.
            CacheSizeError: If its rows would be too short.
            CacheFullError: If every row is taken.
        """
        frames = self.model.config.frames_per_block
        prompt = self._prompt(request)
        prefixes = [request.token_ids, request.null_ids][: 1 + request.options.is_guided]
        for index, ids in enumerate(prefixes):
            drops_voice = index > 0 and self.model.config.speaker_id not in ids
            speaker = None if drops_voice else request.speaker
            check_prefix(torch.tensor(ids), speaker, self.model.config)
        longest = max(len(ids) for ids in prefixes)
        num_prompt_blocks = len(prompt) // frames
        read, positions = self._read(request, prompt)
        rows = self.cache.take(
            read,
            left_padding=tuple(longest - len(ids) for ids in prefixes),
            num_prompt_blocks=num_prompt_blocks,
            num_blocks=num_prompt_blocks - (-request.frame_limit // frames),
        )
        self._schedule(request.options)
        generator = torch.Generator().manual_seed(request.seed)
        return GenerationState(request, rows, generator, positions, num_prompt_blocks)

    @torch.no_grad()
    def step(self, states: Sequence[GenerationState]) -> list[BlockOutput]:
        """The next block of every request, in order; requests of any mix share their passes.

        Raises:
            ValueError: If a request has ended, or is given twice.
        """
        if any(state.is_done for state in states):
            raise ValueError("a finished request cannot step; leave it out")
        if len({id(state) for state in states}) != len(states):
            raise ValueError("a request is given twice in one step")
        if not states:
            return []
        # Those with most steps first, so that the active ones always are the first; then as they
        # stand in the cache, so that neighbours share attention calls.
        order = sorted(range(len(states)), key=lambda i: states[i].rank)
        chosen = [states[index] for index in order]
        with torch.inference_mode():
            schedules = [self._schedule(state.request.options) for state in chosen]
            block = Block(self.model, self.backbone, chosen, schedules)
            normalised, stop = block.run()
            raw = self.model.denormalise(normalised)
        outputs: dict[int, BlockOutput] = {}
        for row, index in enumerate(order):
            valid, is_last = advance(states[index], normalised[row], stop[row] if stop else None)
            # Cloned outside of inference mode: callers get ordinary tensors.
            outputs[index] = BlockOutput(raw[row].clone(), valid, is_last)
            if is_last:
                self.cache.release(states[index].cache)
        return [outputs[index] for index in range(len(states))]

    def close(self, state: GenerationState) -> None:
        """End a request before its last block; one that has ended may be closed again."""
        if not state.is_done:
            state.is_done = True
            self.cache.release(state.cache)

    def generate(self, request: GenerationRequest) -> Iterator[BlockOutput]:
        """The blocks of one request."""
        state = self.open(request)
        try:
            while not state.is_done:
                yield self.step([state])[0]
        finally:
            self.close(state)

    def _schedule(self, options: SamplingOptions) -> FlowSchedule:
        key = (options.time_grid, options.num_flow_steps)
        schedule = self._schedules.pop(key, None)
        if schedule is None:
            schedule = flow_schedule(self.model, options)
        _remember(self._schedules, key, schedule)
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

    def _read(
        self, request: GenerationRequest, prompt: Tensor
    ) -> tuple[KeysValues, tuple[AudioPositions, ...]]:
        """Keys and values of the request's rows, and where their audio stands."""
        at = AudioPositions.after(len(request.token_ids))
        row, end = self._read_row(request, request.token_ids, prompt[:0], at, request.num_words)
        at = self._placed(request, end)
        if len(prompt):
            row, _ = self._read_row(request, request.token_ids, prompt, at, request.num_words)
        if request.frames_per_word is not None:
            at = at.faster(len(prompt), request.speed)  # the prompt keeps its own pace
        if not request.options.is_guided:
            return row, (at,)
        null_at = AudioPositions.after(len(request.null_ids))
        return aligned([row, self._read_null(request, prompt, null_at)]), (at, null_at)

    def _read_row(
        self,
        request: GenerationRequest,
        token_ids: tuple[int, ...],
        prompt: Tensor,
        at: AudioPositions,
        num_words: int = 0,
    ) -> tuple[KeysValues, Float[Tensor, " hidden"]]:
        return read_prefix(
            self.model,
            self.backbone,
            token_ids,
            prompt,
            at,
            uses_expert=request.uses_expert,
            speaker=request.speaker,
            num_words=num_words,
        )

    def _read_null(
        self, request: GenerationRequest, prompt: Tensor, at: AudioPositions
    ) -> KeysValues:
        """The unconditional row.

        Without prompt and voice nothing in it depends on the request, so it is read once.
        """
        null = request.null_ids
        if len(prompt) or self.model.config.speaker_id in null:
            return self._read_row(request, null, prompt, at)[0]
        known = self._nulls.pop((null, request.uses_expert), None)
        if known is None:
            known = self._read_row(request, null, prompt, at)[0]
        _remember(self._nulls, (null, request.uses_expert), known)
        return known

    def _placed(self, request: GenerationRequest, end: Float[Tensor, " hidden"]) -> AudioPositions:
        """Positions of the audio under the prompt: along its words where the model paces speech."""
        num_text = len(request.token_ids)
        if self.model.pace_head is None or not request.num_words:
            return AudioPositions.after(num_text)
        pace = request.frames_per_word
        if pace is None:
            pace = math.exp(float(self.model.pace_head(end).clamp(*_LOG_PACE_RANGE)))
            pace /= request.speed
        return AudioPositions.along_words(num_text, request.num_words, pace)


def _remember(known: dict[Any, Any], key: Any, value: Any) -> None:
    """Keep the value as the last used; the one unused for longest is dropped."""
    known[key] = value
    while len(known) > _NUM_REMEMBERED:
        del known[next(iter(known))]
