"""Block-by-block generation for many requests at once: what opens a request and steps it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from model.attention import arflow_mask
from model.audiocalm import AudioCALM
from model.batch import check_speaker
from model.block_step import BlockStep, FlowSchedule, LocalBlockStep, ThinBlockStep, flow_schedule
from model.experts import route_rows
from model.kv_cache import PrefillAttention
from model.sampling import (
    BlockContext,
    BlockOutput,
    FlowPath,
    GenerationRequest,
    GenerationState,
    SamplingOptions,
)
from model.sequence import PADDING, document_layout

__all__ = ["BlockOutput", "GenerationRequest", "GenerationState", "Sampler", "SamplingOptions"]


_SCHEDULES = 16
"""Solver paths kept; a server sees a handful."""


class Sampler:
    """Generates with one model; holds no state of any request.

    The model's weights are read at the start and must not change while it is used.
    """

    def __init__(self, model: AudioCALM) -> None:
        self.model = model
        self._schedules: dict[FlowPath, FlowSchedule] = {}
        model.backbone.join()

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
        groups: dict[tuple[int, str], list[int]] = {}
        for index, state in enumerate(states):
            options = state.request.options
            groups.setdefault((options.num_flow_steps, options.solver), []).append(index)
        outputs: dict[int, BlockOutput] = {}
        for members in groups.values():
            chosen = [states[index] for index in members]
            schedules = [self._schedule(state.request.options) for state in chosen]
            with torch.inference_mode():
                blocks = self._block_step(chosen, schedules).run()
            for member, block in zip(members, blocks, strict=True):
                # Callers get ordinary tensors.
                outputs[member] = dataclasses.replace(block, latents=block.latents.clone())
        return [outputs[index] for index in range(len(states))]

    def generate(self, request: GenerationRequest) -> Iterator[BlockOutput]:
        """The blocks of one request."""
        state = self.open(request)
        while not state.is_done:
            yield self.step([state])[0]

    def _block_step(
        self, states: list[GenerationState], schedules: list[FlowSchedule]
    ) -> BlockStep:
        is_local = self.model.config.head.kind == "local"
        return (LocalBlockStep if is_local else ThinBlockStep)(self.model, states, schedules)

    def _schedule(self, options: SamplingOptions) -> FlowSchedule:
        """Of a solver path; what depends on flow time alone is computed once."""
        path = options.path
        schedule = self._schedules.pop(path, None)
        if schedule is None:
            schedule = flow_schedule(self.model, path)
        # The last used comes last; the first is forgotten.
        self._schedules[path] = schedule
        while len(self._schedules) > _SCHEDULES:
            del self._schedules[next(iter(self._schedules))]
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
        model, config = self.model, self.model.config
        rows = [request.token_ids, request.null_ids][: 1 + request.is_guided]
        longest = max(len(row) for row in rows)
        padding = tuple(longest - len(row) for row in rows)
        token_ids = torch.zeros(len(rows), longest, dtype=torch.int64)
        for index, row in enumerate(rows):
            token_ids[index, padding[index] :] = self._checked_ids(row, request, is_null=index > 0)
        layout = document_layout(longest, len(prompt), 0, config.frames_per_block)
        document = torch.zeros(len(rows), len(layout.segment), dtype=torch.int32)
        for index, pad in enumerate(padding):
            document[index, :pad] = PADDING
        mask = arflow_mask(
            document,
            layout.segment.expand(len(rows), -1),
            layout.block.expand(len(rows), -1),
            layout.copy.expand(len(rows), -1),
            config.window_blocks,
        )
        position = (layout.position - torch.tensor(padding)[:, None]).clamp_min(0)
        speaker = None
        if request.speaker is not None:
            speaker = request.speaker.to(model.device).expand(len(rows), 1, -1)
        embeddings = torch.cat(
            [
                model.embed_prefix(token_ids.to(model.device), speaker),
                model.embed_clean(prompt).expand(len(rows), -1, -1),
            ],
            dim=1,
        )
        attention = PrefillAttention(mask.to(model.device))
        route = route_rows([request.uses_expert], embeddings.shape[1], model.device)
        hidden = model.backbone(embeddings, position.to(model.device), attention, route)
        cache = attention.cache(padding, longest, config.frames_per_block, config.window_blocks)
        return GenerationState(
            request,
            cache,
            generator=torch.Generator().manual_seed(request.seed),
            block_index=cache.num_blocks,
            context=self._context(hidden, prompt),
        )

    def _context(
        self, hidden: Float[Tensor, "rows seq hidden"], prompt: Float[Tensor, "frames latent_dim"]
    ) -> BlockContext | None:
        """What stands before the first block: the end of the prompt, or of the prefix."""
        if self.model.config.head.kind != "local":
            return None
        frames = self.model.config.frames_per_block
        if len(prompt):
            return BlockContext(hidden[:, -frames:], prompt[-frames:], is_audio=True)
        nothing = prompt.new_zeros(frames, prompt.shape[1])
        return BlockContext(hidden[:, -1:].expand(-1, frames, -1), nothing, is_audio=False)

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
