"""The passes of a block over static slots, captured as CUDA graphs where there is a GPU.

Whatever changes from block to block is read from buffers that never move: the caches through
masks, the flow time through tables that a counter on the device walks down. So one graph serves
every evaluation of every block of a shape, and the host only launches it: nothing inside a block
waits for the device. Shapes differ in slots, cache width, and whether any request uses the expert:
without one it is not launched.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor

from model.audiocalm import AudioCALM
from model.experts import Route
from model.flow import guided_velocity, sde_drift
from model.flow_head import ThinFlowHead
from model.flow_schedule import FlowSchedule
from model.local_head import LocalFlowHead
from model.rotary import Rotary
from model.slots import ROWS, SlotAttention, SlotPlan, Slots

_MOST_SHAPES = 4096
"""Shapes for which the same code is compiled; beyond its own limit, 8, Dynamo silently runs it
uncompiled."""
_WARM_UPS = 2
"""Runs before a capture, in which libraries choose their kernels and take their memory."""


@dataclass(frozen=True)
class Shape:
    """What a pass is captured for.

    Attributes:
        num_slots: Slots from the first on.
        width: Places of each.
        uses_expert: Whether any of them routes to the expert.
    """

    num_slots: int
    width: int
    uses_expert: bool


class Buffers:
    """What passes read and write, in memory that never moves; axis `slots` first, or its rows."""

    def __init__(self, model: AudioCALM, slots: Slots, plan: SlotPlan, width: int) -> None:
        config, count = model.config, plan.num_slots
        frames, rows, times = config.frames_per_block, ROWS * plan.num_slots, plan.num_evaluations

        def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(shape, device=model.device, dtype=dtype)

        self.state = zeros(count, frames, config.latent_dim)
        self.point = zeros(count, frames, config.latent_dim)
        self.pending = zeros(count, frames, config.latent_dim)
        self.evaluation = zeros(1, dtype=torch.int64)
        self.table = zeros(times, count, width, dtype=model.dtype)
        self.times, self.moves = (zeros(times, count, 1, 1) for _ in range(2))
        self.is_state = zeros(times, 1, 1, dtype=torch.bool)
        self.guidance_scale = zeros(times, count)
        self.zero_star, self.rescale = zeros(count), zeros(count)
        self.sde_temperature = zeros(count, 1, 1)
        self.noise = zeros(times, count, frames, config.latent_dim)
        angles = (rows, 1, 2 * frames, config.backbone.head_dim)
        self.cosine, self.sine = (zeros(*angles, dtype=model.dtype) for _ in range(2))
        self.block_bias = zeros(rows, 1, 1, slots.size, dtype=model.dtype)
        self.pending_bias = zeros(rows, 1, 1, slots.size, dtype=model.dtype)
        self.routed = zeros(rows, 1, 1, dtype=model.dtype)
        self.hidden = zeros(rows, frames, config.backbone.hidden_dim, dtype=model.dtype)
        # Only read under the local head.
        self.condition = zeros(rows, frames, config.head.hidden_dim, dtype=model.dtype)


class Passes:
    """The passes of one model over its slots.

    Args:
        model: Its weights must not change.
        slots: Memory of the caches.
        plan: Sizes, and whether passes are captured and compiled.
        schedule: Any solver path of the model.
    """

    def __init__(
        self, model: AudioCALM, slots: Slots, plan: SlotPlan, schedule: FlowSchedule
    ) -> None:
        self.model, self.slots, self._schedule = model, slots, schedule
        self.buffers = Buffers(model, slots, plan, schedule.table.shape[1])
        self._compiles = plan.compiles
        self._captures = plan.uses_graphs and model.device.type == "cuda"
        self._graphs: list[torch.cuda.CUDAGraph] = []
        self._ready: dict[Hashable, Callable[[], None]] = {}

    def evaluate(self, shape: Shape, *, writes_pending: bool) -> None:
        """One evaluation of the flow; `point` and `state` move on.

        Args:
            shape: Of the pass.
            writes_pending: Run the pending clean blocks along; only under the thin head.
        """
        self._run(
            ("evaluate", shape, writes_pending), lambda: self._evaluate(shape, writes_pending)
        )

    def condition(self, shape: Shape, *, writes_pending: bool) -> None:
        """The pass over blank frames that precedes a block under the local head.

        Args:
            shape: Of the pass.
            writes_pending: Run the pending clean blocks along.
        """
        self._run(
            ("condition", shape, writes_pending), lambda: self._condition(shape, writes_pending)
        )

    def write(self, shape: Shape) -> None:
        """A clean pass over `state`; `hidden` has its states."""
        self._run(("write", shape), lambda: self._write(shape))

    def _evaluate(self, shape: Shape, writes_pending: bool) -> None:
        buffers, count = self.buffers, shape.num_slots
        now = buffers.evaluation
        at = self._schedule.taken_apart(
            _twice(buffers.table[:, :count].index_select(0, now)[0][:, None])
        )
        head, point = self.model.flow_head, buffers.point[:count]
        if isinstance(head, ThinFlowHead):
            assert at.embedding is not None
            noisy = _twice(self.model.latent_proj(point.to(self.model.dtype))) + at.embedding
            hidden = self._frames(shape, noisy, writes_pending)
            velocity = head.velocity(hidden, at.modulations)
        else:
            assert isinstance(head, LocalFlowHead)
            condition = buffers.condition[: ROWS * count]
            angles = head.angles(self.slots.frames)
            velocity = head.velocity(_twice(point), condition, at.modulations, angles)
        conditional, unconditional = rearrange(velocity, "(b g) f d -> g b f d", g=ROWS)
        scale = buffers.guidance_scale[:, :count].index_select(0, now)[0]
        guided = guided_velocity(
            conditional, unconditional, scale, buffers.zero_star[:count], buffers.rescale[:count]
        )
        times, moves, noise = (
            values[:, :count].index_select(0, now)[0]
            for values in (buffers.times, buffers.moves, buffers.noise)
        )
        drift = sde_drift(guided, point, times, buffers.sde_temperature[:count])
        moved = buffers.state[:count] + moves * drift + noise
        point.copy_(moved)
        is_state = buffers.is_state.index_select(0, now)
        buffers.state[:count].copy_(torch.where(is_state, moved, buffers.state[:count]))
        now.add_(1)

    def _frames(
        self, shape: Shape, noisy: Tensor, writes_pending: bool
    ) -> Float[Tensor, "rows block_frames hidden"]:
        """States of noisy or blank blocks."""
        frames = self.slots.frames
        if not writes_pending:
            return self._backbone(shape, noisy, slice(frames, 2 * frames))
        clean = _twice(self.model.embed_clean(self.buffers.pending[: shape.num_slots]))
        both = torch.cat([clean, noisy], dim=1)
        return self._backbone(shape, both, slice(0, 2 * frames))[:, frames:].contiguous()

    def _condition(self, shape: Shape, writes_pending: bool) -> None:
        head, rows = self.model.flow_head, ROWS * shape.num_slots
        assert isinstance(head, LocalFlowHead)
        hidden = self._frames(shape, self.model.embed_blank(rows), writes_pending)
        self.buffers.condition[:rows].copy_(head.condition(hidden))

    def _write(self, shape: Shape) -> None:
        buffers, frames = self.buffers, self.slots.frames
        clean = _twice(self.model.embed_clean(buffers.state[: shape.num_slots]))
        hidden = self._backbone(shape, clean, slice(frames, 2 * frames))
        buffers.hidden[: len(clean)].copy_(hidden)

    def _backbone(
        self, shape: Shape, embeddings: Tensor, own: slice
    ) -> Float[Tensor, "rows seq hidden"]:
        """A pass over blocks that stand in the scratch places `own`."""
        buffers, rows = self.buffers, ROWS * shape.num_slots
        angles = Rotary(buffers.cosine[:rows, :, own], buffers.sine[:rows, :, own])
        config = self.model.config.backbone
        attention = SlotAttention(self.slots, rows, own, self._bias(shape, own))
        route = Route(None, rows=buffers.routed[:rows]) if shape.uses_expert else None
        hidden: Tensor = self.model.backbone(
            embeddings, [angles] * config.num_layers, attention, route
        )
        return hidden

    def _bias(self, shape: Shape, own: slice) -> Float[Tensor, "rows 1 queries places"]:
        """What the frames in `own` see; one query stands for all where they see the same."""
        buffers, rows, frames = self.buffers, ROWS * shape.num_slots, self.slots.frames
        of_block = buffers.block_bias[:rows, :, :, : shape.width]
        of_pending = buffers.pending_bias[:rows, :, :, : shape.width]
        if own.start:
            return of_block
        config = self.model.config.backbone
        both = torch.cat(
            [repeat(b, "r 1 1 p -> r 1 f p", f=frames) for b in (of_pending, of_block)], 2
        )
        return repeat(both, "r 1 f p -> r 1 (g f) p", g=config.num_heads // config.num_kv_heads)

    def _run(self, key: Hashable, run: Callable[[], None]) -> None:
        if key not in self._ready:
            ready = _compiled(run) if self._compiles else run
            self._ready[key] = self._captured(ready).replay if self._captures else ready
        self._ready[key]()

    def _captured(self, run: Callable[[], None]) -> torch.cuda.CUDAGraph:
        """A graph of a pass; what the pass moves on is put back."""
        moving = (self.buffers.evaluation, self.buffers.point, self.buffers.state)
        before = [value.clone() for value in moving]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UPS):
                run()
        torch.cuda.current_stream().wait_stream(side)
        for value, old in zip(moving, before, strict=True):
            value.copy_(old)
        graph = torch.cuda.CUDAGraph()
        # They run one after the other, so they may share their intermediate memory.
        pool = self._graphs[0].pool() if self._graphs else None
        with torch.cuda.graph(graph, pool=pool):
            run()
        self._graphs.append(graph)
        return graph


def _compiled(run: Callable[[], None]) -> Callable[[], None]:
    """A pass of one shape, compiled as a whole when it first runs."""
    compiled = torch.compile(run, dynamic=False)
    limits = {"recompile_limit": _MOST_SHAPES, "accumulated_recompile_limit": _MOST_SHAPES}

    def call() -> None:
        with torch._dynamo.config.patch(limits):
            compiled()

    return call


def _twice(of_slots: Tensor) -> Tensor:
    """The value of both rows of every slot."""
    return of_slots[:, None].expand(-1, ROWS, *of_slots.shape[1:]).flatten(0, 1)
