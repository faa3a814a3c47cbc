"""Block-by-block generation for many requests at once: open, step, close."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache, partial

import torch
from jaxtyping import Float
from torch import Tensor

from model.audiocalm import AudioCALM
from model.backbone import BackboneLike
from model.batch import check_prefix
from model.inference.block import Block
from model.inference.cache import KeysValues, KVCache
from model.inference.generation import (
    BlockOutput,
    GenerationRequest,
    GenerationState,
)
from model.inference.prefill import aligned, read_prefix
from model.inference.schedule import flow_schedule
from model.sequence import AudioPositions

_LOG_DURATION_RANGE = (math.log(0.01), math.log(20.0))
"""Frames a transcript token may take by prediction, at 25 a second up to 0.8 s: readers rest for
seconds between sentences, and an untrained head must not overflow."""
_RATE_RANGE = (0.5, 2.0)
"""Slowness of a prompt, next to the prediction, that speech after it keeps."""
_NUM_REMEMBERED = 16
"""Schedules, null prefixes and descriptions that a sampler keeps; a server meets a handful."""
_LONGEST_REMEMBERED = 256
"""Tokens of a description that is kept; bounds the memory of all of them."""


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
        self._schedule = lru_cache(_NUM_REMEMBERED)(partial(flow_schedule, model))
        self._row = lru_cache(_NUM_REMEMBERED)(self._read_row)

    @torch.inference_mode()
    def open(self, request: GenerationRequest) -> GenerationState:
        """State of a request before its first block, its prefix and prompt in the cache.

        It holds rows of the cache until its last block, or until `close`.

        Raises:
            ValueError: If the request does not suit the model.
            CacheSizeError: If its rows would be too short.
            CacheFullError: If every row is taken.
        """
        config = self.model.config
        check_prefix(torch.tensor(request.token_ids), request.speaker, config)
        if request.options.is_guided:
            check_prefix(torch.tensor(request.null_ids), None, config)
        prompt = self._prompt(request.prompt_latents)
        read, positions = self._read(request, prompt)
        is_cut = False
        if positions[0].ends and request.exact_frames is None:
            # The last word ends it.
            expected = math.ceil(positions[0].ends[-1]) - len(prompt)
            is_cut = expected > request.max_frames
            bounds = request.min_frames, request.max_frames
            request = replace(request, exact_frames=min(max(expected, bounds[0]), bounds[1]))
        keys_values, left_padding = aligned(read)
        num_blocks = -(-request.frame_limit // config.frames_per_block)
        rows = self.cache.take(keys_values, left_padding, num_blocks=num_blocks)
        generator = torch.Generator().manual_seed(request.seed)
        num_prompt_blocks = len(prompt) // config.frames_per_block
        return GenerationState(
            request, rows, generator, positions, num_prompt_blocks, is_cut=is_cut
        )

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
            schedules = [self._schedule(s.request.options.num_flow_steps) for s in chosen]
            block = Block(self.model, self.backbone, chosen, schedules)
            normalised, stop = block.run()
            raw = self.model.denormalise(normalised)
        outputs: dict[int, BlockOutput] = {}
        for row, index in enumerate(order):
            valid, is_last = states[index].advance(normalised[row], stop[row] if stop else None)
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

    def _read(
        self, request: GenerationRequest, prompt: Float[Tensor, "frames latent_dim"]
    ) -> tuple[list[KeysValues], tuple[AudioPositions, ...]]:
        """Keys and values of each row of the request, and where their audio stands."""
        read_null = partial(
            read_prefix, self.model, self.backbone, uses_expert=request.uses_expert, speaker=None
        )
        ids, null_ids, num_words = request.token_ids, request.null_ids, request.num_words
        read = partial(read_null, speaker=request.speaker, num_words=num_words)
        at = AudioPositions.after(len(ids), request.position_rate)
        past = self._past(request)
        row, states = read(ids, prompt[:0], at, past=past)
        if self.model.duration_head is not None and num_words:
            at = AudioPositions.along_words(len(ids), self._durations(request, states, len(prompt)))
        if len(prompt):
            row, _ = read(ids, prompt, at, past=row)
        if not request.options.is_guided:
            return [row], (at,)
        null_at = AudioPositions.after(len(null_ids))
        if len(prompt):
            null, _ = read_null(null_ids, prompt, null_at)
        else:
            null = self._row(null_ids, None, request.uses_expert)
        return [row, null], (at, null_at)

    def _past(self, request: GenerationRequest) -> KeysValues | None:
        """What precedes the transcript, read once for all requests of a description and voice.

        Its states depend on nothing that follows. Where no transcript ends the prefix, or what
        precedes it is long, nothing is kept.
        """
        description = request.token_ids[: -1 - request.num_words]
        if not request.num_words or not 0 < len(description) <= _LONGEST_REMEMBERED:
            return None
        speaker = request.speaker
        voice = None if speaker is None else tuple(speaker.float().tolist())
        return self._row(description, voice, request.uses_expert)

    def _read_row(
        self, token_ids: tuple[int, ...], voice: tuple[float, ...] | None, uses_expert: bool
    ) -> KeysValues:
        """The row of a null prefix, or of a description with its voice, without words."""
        return read_prefix(
            self.model,
            self.backbone,
            token_ids,
            self._prompt(None),
            AudioPositions.after(len(token_ids)),
            uses_expert=uses_expert,
            speaker=None if voice is None else torch.tensor(voice),
        )[0]

    def _prompt(
        self, latents: Float[Tensor, "frames latent_dim"] | None
    ) -> Float[Tensor, "prompt_frames latent_dim"]:
        """Normalised whole blocks of a prompt; none without one."""
        config = self.model.config
        if latents is None:
            latents = torch.zeros(0, config.latent_dim)
        whole = latents[len(latents) % config.frames_per_block :]
        return self.model.normalise(whole.to(self.model.device))

    def _durations(
        self, request: GenerationRequest, states: Float[Tensor, "text hidden"], num_prompt: int
    ) -> list[float]:
        """Frames of every transcript token: those of the prompt fill it, the others follow at its
        rate and the request's speed, or fill the exact number of frames."""
        assert self.model.duration_head is not None
        words = states[-1 - request.num_words : -1]
        expected = self.model.duration_head(words).clamp(*_LOG_DURATION_RANGE).exp().double()
        spoken, following = expected.tensor_split([request.num_prompt_words])
        slowness = 1.0
        if len(spoken):
            slowness = num_prompt / float(spoken.sum())
            spoken = spoken * slowness
            slowness = min(max(slowness, _RATE_RANGE[0]), _RATE_RANGE[1])
        following = following * (slowness / request.speed)
        if request.exact_frames is not None and len(following):
            following = following * (request.exact_frames / float(following.sum()))
        return [*spoken.tolist(), *following.tolist()]
