"""One block of requests that step together: noise, flow against the cache, clean write, stop.

Under the thin head every flow evaluation is a pass of the backbone, under the local head one over
blank frames precedes them all. The clean write of a block is fused with the first pass of the
next where nothing waits for it. Where the stop decision waits for it, it is a pass of its own at
the end of the block: the logit comes from that pass, and waiting for the next block would delay
every packet by one.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import repeat
from jaxtyping import Float
from torch import Tensor

from model.attention import Attend
from model.audiocalm import AudioCALM
from model.backbone import Backbone
from model.cpu_backbone import CpuBackbone
from model.experts import Route, route_rows
from model.flow import guided_velocity
from model.flow_head import ThinFlowHead
from model.flow_schedule import FlowPoint, FlowSchedule, side_by_side
from model.kv_cache import StepCache
from model.local_head import LocalFlowHead
from model.rotary import Rotary
from model.sampling import BlockOutput, GenerationState


class _Rows:
    """Requests and their rows: conditional, then unconditional under guidance."""

    def __init__(self, states: Sequence[GenerationState], device: torch.device) -> None:
        counts = [state.cache.num_rows for state in states]
        self.request = [index for index, count in enumerate(counts) for _ in range(count)]
        self._index = torch.tensor(self.request, device=device)
        self._conditional = torch.tensor([0, *itertools.accumulate(counts)][:-1], device=device)
        self._guided = torch.tensor([i for i, n in enumerate(counts) if n > 1], device=device)
        self.is_single = len(states) == len(self.request)
        self.is_paired = all(count > 1 for count in counts)
        options = [state.request.options for state, n in zip(states, counts, strict=True) if n > 1]
        self._scale = torch.tensor([o.guidance_scale for o in options], device=device)

    def spread(self, of_requests: Tensor) -> Tensor:
        """The value of every row, given that of every request."""
        if self.is_single:
            return of_requests
        if len(of_requests) == 1:
            # Contiguous, or the next product becomes one for every row.
            return of_requests.expand(len(self.request), *of_requests.shape[1:]).contiguous()
        return of_requests[self._index]

    def conditional(self, of_rows: Tensor) -> Tensor:
        """The first row of every request."""
        if self.is_single:
            return of_rows
        return of_rows[::2] if self.is_paired else of_rows[self._conditional]

    def guide(self, velocity: Tensor) -> Tensor:
        """Velocity of every request, given that of every row."""
        if self.is_single:
            return velocity
        if self.is_paired:
            return guided_velocity(velocity[::2], velocity[1::2], self._scale)
        conditional = velocity[self._conditional]
        guided = guided_velocity(
            conditional[self._guided],
            velocity[self._conditional[self._guided] + 1],
            self._scale,
        )
        return conditional.index_copy(0, self._guided, guided)


@dataclass(frozen=True, eq=False)
class _Pass:
    """A pass of the backbone over frames of some rows: where they stand and what they see."""

    rotary: list[Rotary]
    attention: Attend
    route: Route | None


class BlockStep(ABC):
    """One block of requests with equal solver work; the heads differ in how they evaluate.

    Args:
        model: Of all requests.
        backbone: Its `inference_backbone`.
        states: Move on by one block.
        schedules: Of the solver path of every request.
    """

    def __init__(
        self,
        model: AudioCALM,
        backbone: Backbone | CpuBackbone,
        states: list[GenerationState],
        schedules: list[FlowSchedule],
    ) -> None:
        self.model, self.backbone, self.states = model, backbone, states
        self.frames = model.config.frames_per_block
        self.schedules = schedules
        self.rows = _Rows(states, model.device)
        self.has_pending = [state.pending is not None for state in states]
        self.cache = StepCache([state.cache for state in states], self.has_pending)
        self.position = self._positions()
        self.uses_expert = [states[index].request.uses_expert for index in self.rows.request]
        self.block = self._pass(self.position, self.cache.block_attention())
        self.is_first = True

    def run(self) -> list[BlockOutput]:
        """The block of every request; their states move on."""
        self._begin()
        latents = self._integrate()
        stop: list[list[float]] | None = None
        if any(may_stop(state) for state in self.states):
            hidden = self._backbone(self._clean_rows(latents), self.block)
            stop = self.model.stop_head(self.rows.conditional(hidden)).sigmoid().tolist()
        self.cache.commit(has_clean_block=stop is not None)
        return finished(self.states, latents, self.model.denormalise(latents), stop)

    def _begin(self) -> None:  # noqa: B027  # optional: the thin head needs none
        """What precedes the first evaluation."""

    @abstractmethod
    def _evaluate(self, noisy_latents: Tensor, at: FlowPoint) -> Tensor:
        """Velocity of every row."""

    def _integrate(self) -> Float[Tensor, "batch block_frames latent_dim"]:
        """Flow from noise to a clean block, state and times in float32."""
        point = initial_noise(self.states, self.model.config.latent_dim).to(self.model.device)
        for index, points in enumerate(zip(*self.schedules, strict=True)):
            self.is_first = index == 0
            at = side_by_side(points, self.rows.request)
            velocity = self.rows.guide(self._evaluate(point, at))
            point = torch.addcmul(point, velocity, at.move)
        return point

    def _clean_rows(self, latents: Tensor) -> Tensor:
        return self.rows.spread(self.model.embed_clean(latents))

    def _pending(self) -> Float[Tensor, "batch block_frames latent_dim"]:
        """The blocks still to be written; zeros, which nothing reads, where there is none."""
        nothing = torch.zeros(self.frames, self.model.config.latent_dim, device=self.model.device)
        blocks = [nothing if state.pending is None else state.pending for state in self.states]
        return torch.stack(blocks)

    def _pass(self, position: Tensor, attention: Attend) -> _Pass:
        route = route_rows(self.uses_expert, position.shape[1], self.model.device)
        rotary = self.backbone.rotary(position, self.model.dtype)
        return _Pass(rotary, attention, route)

    def _backbone(self, embeddings: Tensor, by: _Pass) -> Float[Tensor, "rows seq hidden"]:
        hidden: Tensor = self.backbone(embeddings, by.rotary, by.attention, by.route)
        return hidden

    def _first_pass(self, block: Tensor) -> Float[Tensor, "rows block_frames hidden"]:
        """States of a block's frames; the pending clean blocks are written along."""
        if not any(self.has_pending):
            return self._backbone(block, self.block)
        both = torch.cat([(self.position - self.frames).clamp_min(0), self.position], dim=1)
        hidden = self._backbone(
            torch.cat([self._clean_rows(self._pending()), block], dim=1),
            self._pass(both, self.cache.fused_attention()),
        )
        # Contiguous, or the head's first product becomes one for every row.
        return hidden[:, self.frames :].contiguous()

    def _positions(self) -> Tensor:
        """Rotary positions of the block's frames in every row."""
        starts = [
            state.cache.prefix_slots - pad + state.block_index * self.frames
            for state in self.states
            for pad in state.cache.left_padding
        ]
        frames = repeat(torch.arange(self.frames), "f -> r f", r=len(starts))
        return (torch.tensor(starts)[:, None] + frames).to(self.model.device)


class ThinBlockStep(BlockStep):
    """Every evaluation is a pass of the backbone; the first also writes the pending blocks."""

    def _evaluate(self, noisy_latents: Tensor, at: FlowPoint) -> Tensor:
        assert isinstance(self.model.flow_head, ThinFlowHead)
        assert at.embedding is not None
        embeddings = self.model.latent_proj(noisy_latents.to(self.model.dtype))
        embeddings = self.rows.spread(embeddings) + at.embedding
        if self.is_first:
            hidden = self._first_pass(embeddings)
        else:
            hidden = self._backbone(embeddings, self.block)
        return self.model.flow_head.velocity(hidden, at.modulations)


class LocalBlockStep(BlockStep):
    """The backbone reads blank frames and writes the pending blocks; evaluations are the head's
    alone."""

    def _begin(self) -> None:
        assert isinstance(self.model.flow_head, LocalFlowHead)
        hidden = self._first_pass(self.model.embed_blank(len(self.rows.request)))
        self.condition = self.model.flow_head.condition(hidden)
        self.angles = self.model.flow_head.angles(self.frames)

    def _evaluate(self, noisy_latents: Tensor, at: FlowPoint) -> Tensor:
        assert isinstance(self.model.flow_head, LocalFlowHead)
        return self.model.flow_head.velocity(
            self.rows.spread(noisy_latents), self.condition, at.modulations, self.angles
        )


def initial_noise(
    states: Sequence[GenerationState], latent_dim: int
) -> Float[Tensor, "batch block_frames latent_dim"]:
    """Where the flow of the next block starts, on the CPU; every request draws its own."""
    return torch.stack(
        [
            torch.randn(state.cache.frames_per_block, latent_dim, generator=state.generator)
            * state.request.options.temperature**0.5
            for state in states
        ]
    )


def may_stop(state: GenerationState) -> bool:
    """Whether the stop decision of the next block counts."""
    request = state.request
    return request.exact_frames is None and (
        state.num_frames + state.cache.frames_per_block >= request.min_frames
    )


def finished(
    states: Sequence[GenerationState],
    latents: Float[Tensor, "batch block_frames latent_dim"],
    raw: Float[Tensor, "batch block_frames latent_dim"],
    stop: list[list[float]] | None,
) -> list[BlockOutput]:
    """The block of every request; the states move on.

    Args:
        states: Of the requests.
        latents: Their blocks, normalised.
        raw: The same in the codec's scale.
        stop: Probability of `end_of_audio` at every frame; None where the blocks are not in the
            cache yet.
    """
    outputs = []
    for index, state in enumerate(states):
        decision = stop[index] if stop is not None and may_stop(state) else None
        valid, is_last = _valid_frames(state, latents.shape[1], decision)
        state.block_index += 1
        state.num_frames += valid
        state.pending = latents[index] if stop is None and not is_last else None
        state.is_done = is_last
        outputs.append(BlockOutput(raw[index], valid, is_last))
    return outputs


def _valid_frames(
    state: GenerationState, block_frames: int, stop: list[float] | None
) -> tuple[int, bool]:
    """Frames of the block that count, and whether the request ends with them."""
    request = state.request
    limit = request.max_frames if request.exact_frames is None else request.exact_frames
    for frame in range(block_frames):
        total = state.num_frames + frame + 1
        is_stop = stop is not None and stop[frame] > request.options.stop_threshold
        if total >= limit or (is_stop and total >= request.min_frames):
            return frame + 1, True
    return block_frames, False
