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
from functools import cached_property

import torch
from einops import repeat
from jaxtyping import Float
from torch import Tensor

from model.attention import Attend
from model.audiocalm import AudioCALM
from model.backbone import Backbone
from model.cpu_backbone import CpuBackbone
from model.experts import Route, route_rows
from model.flow import guided_velocity, sde_drift
from model.flow_head import ThinFlowHead
from model.flow_schedule import FlowPoint, FlowSchedule, side_by_side
from model.kv_cache import ALL_ROWS, StepCache
from model.local_head import LocalFlowHead
from model.rotary import Rotary
from model.sampling import BlockOutput, GenerationState


class _Rows:
    """Requests and their rows: conditional, then unconditional under guidance."""

    kept = slice(None, None, 2)
    """Rows of `without_guidance`."""

    def __init__(
        self, states: Sequence[GenerationState], device: torch.device, *, is_guided: bool = True
    ) -> None:
        counts = [state.cache.num_rows if is_guided else 1 for state in states]
        self._halved: _Rows | None = None
        self.request = [index for index, count in enumerate(counts) for _ in range(count)]
        self.states = states
        self._index = torch.tensor(self.request, device=device)
        self._conditional = torch.tensor([0, *itertools.accumulate(counts)][:-1], device=device)
        self._guided = torch.tensor([i for i, n in enumerate(counts) if n > 1], device=device)
        self.is_single = len(states) == len(self.request)
        self.is_paired = all(count > 1 for count in counts)
        options = [state.request.options for state, n in zip(states, counts, strict=True) if n > 1]
        self._scale = torch.tensor([o.guidance_scale for o in options], device=device)
        self._zero_star = _values([float(o.cfg_zero_star) for o in options], device)
        self._rescale = _values([o.guidance_rescale for o in options], device)

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
        return of_rows[:: self.kept.step] if self.is_paired else of_rows[self._conditional]

    def without_guidance(self) -> _Rows:
        """The conditional rows alone, where they can be told apart without a copy."""
        if not self.is_paired:
            return self
        if self._halved is None:
            self._halved = _Rows(self.states, self._index.device, is_guided=False)
        return self._halved

    def guide(self, velocity: Tensor) -> Tensor:
        """Velocity of every request, given that of every row."""
        if self.is_single:
            return velocity
        if self.is_paired:
            conditional, unconditional = velocity[::2], velocity[1::2]
            return guided_velocity(
                conditional, unconditional, self._scale, self._zero_star, self._rescale
            )
        conditional = velocity[self._conditional]
        guided = guided_velocity(
            conditional[self._guided],
            velocity[self._conditional[self._guided] + 1],
            self._scale,
            self._zero_star,
            self._rescale,
        )
        return conditional.index_copy(0, self._guided, guided)


def _values(of_requests: list[float], device: torch.device) -> Tensor | None:
    """None where all are zero."""
    return torch.tensor(of_requests, device=device) if any(of_requests) else None


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
    def _evaluate(self, noisy_latents: Tensor, at: FlowPoint, rows: _Rows) -> Tensor:
        """Velocity of every row."""

    def _writes_first(self) -> bool:
        """Whether the first evaluation runs all rows in any case."""
        return False

    def _integrate(self) -> Float[Tensor, "batch block_frames latent_dim"]:
        """Flow from noise to a clean block, state and times in float32."""
        device, paths = self.model.device, self.schedules
        state = point = initial_noise(self.states, self.model.config.latent_dim).to(device)
        noise = step_noise(self.states, paths, self.model.config.latent_dim)
        heat = _values([state.request.options.sde_temperature for state in self.states], device)
        if noise is not None and heat is not None:
            noise, heat = noise.to(device), heat[:, None, None]
        kinds = zip(paths[0].is_state, paths[0].is_guided, strict=True)
        for index, (is_state, is_guided) in enumerate(kinds):
            self.is_first = index == 0
            rows = self.rows
            if not is_guided and not (self.is_first and self._writes_first()):
                rows = self.rows.without_guidance()
            at = side_by_side([path.points[index] for path in paths], rows.request)
            velocity = self._evaluate(point, at, rows)
            velocity = rows.guide(velocity) if is_guided else rows.conditional(velocity)
            if heat is not None:
                velocity = sde_drift(velocity, point, at.time, heat)
            point = torch.addcmul(state, velocity, at.move)
            if noise is not None:
                point = point + noise[index]
            if is_state:
                state = point
        return state

    def _clean_rows(self, latents: Tensor) -> Tensor:
        return self.rows.spread(self.model.embed_clean(latents))

    def _pending(self) -> Float[Tensor, "batch block_frames latent_dim"]:
        """The blocks still to be written; zeros, which nothing reads, where there is none."""
        nothing = torch.zeros(self.frames, self.model.config.latent_dim, device=self.model.device)
        blocks = [nothing if state.pending is None else state.pending for state in self.states]
        return torch.stack(blocks)

    def _pass(self, position: Tensor, attention: Attend, rows: slice = ALL_ROWS) -> _Pass:
        route = route_rows(self.uses_expert[rows], position.shape[1], self.model.device)
        rotary = self.backbone.rotary(position[rows], self.model.dtype)
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

    def _writes_first(self) -> bool:
        return any(self.has_pending)

    def _evaluate(self, noisy_latents: Tensor, at: FlowPoint, rows: _Rows) -> Tensor:
        assert isinstance(self.model.flow_head, ThinFlowHead)
        assert at.embedding is not None
        embeddings = self.model.latent_proj(noisy_latents.to(self.model.dtype))
        embeddings = rows.spread(embeddings) + at.embedding
        if rows is not self.rows:
            hidden = self._backbone(embeddings, self._halved)
        elif self.is_first:
            hidden = self._first_pass(embeddings)
        else:
            hidden = self._backbone(embeddings, self.block)
        return self.model.flow_head.velocity(hidden, at.modulations)

    @cached_property
    def _halved(self) -> _Pass:
        """Without the unconditional rows."""
        rows = self.rows.kept
        return self._pass(self.position, self.cache.block_attention(rows), rows)


class LocalBlockStep(BlockStep):
    """The backbone reads blank frames and writes the pending blocks; evaluations are the head's
    alone."""

    def _begin(self) -> None:
        assert isinstance(self.model.flow_head, LocalFlowHead)
        hidden = self._first_pass(self.model.embed_blank(len(self.rows.request)))
        self.condition = self.model.flow_head.condition(hidden)
        self.angles = self.model.flow_head.angles(self.frames)

    def _evaluate(self, noisy_latents: Tensor, at: FlowPoint, rows: _Rows) -> Tensor:
        assert isinstance(self.model.flow_head, LocalFlowHead)
        condition = self.condition if rows is self.rows else self.condition[rows.kept]
        return self.model.flow_head.velocity(
            rows.spread(noisy_latents), condition, at.modulations, self.angles
        )


def initial_noise(
    states: Sequence[GenerationState], latent_dim: int
) -> Float[Tensor, "batch block_frames latent_dim"]:
    """Where the flow of the next block starts, on the CPU; every request draws its own."""
    return torch.stack(
        [_drawn(state, latent_dim) * state.request.options.temperature**0.5 for state in states]
    )


def step_noise(
    states: Sequence[GenerationState], schedules: Sequence[FlowSchedule], latent_dim: int
) -> Float[Tensor, "times batch block_frames latent_dim"] | None:
    """What is added to the point after every evaluation, on the CPU; None where it is nothing.

    To be drawn after `initial_noise`.
    """
    heats = [state.request.options.sde_temperature for state in states]
    if not any(heats):
        return None
    of_requests = []
    for state, schedule, heat in zip(states, schedules, heats, strict=True):
        shape = (len(schedule.noise_std), state.cache.frames_per_block, latent_dim)
        noise = torch.zeros(shape)
        if heat:
            for index in [i for i, is_state in enumerate(schedule.is_state) if is_state]:
                noise[index] = heat**0.5 * schedule.noise_std[index] * _drawn(state, latent_dim)
        of_requests.append(noise)
    return torch.stack(of_requests, dim=1)


def _drawn(state: GenerationState, latent_dim: int) -> Float[Tensor, "block_frames latent_dim"]:
    shape = (state.cache.frames_per_block, latent_dim)
    return torch.randn(shape, generator=state.generator)


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
