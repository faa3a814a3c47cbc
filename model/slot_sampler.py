"""The sampler over static slots: the same latents, with shapes that a graph can be captured for.

A request takes a slot when it is opened and gives it back with its last block, or by `close`. All
slots up to the last taken one run in every pass; those that do not take part compute what nothing
reads.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from model.audiocalm import AudioCALM
from model.block_step import finished, initial_noise, may_stop, step_noise
from model.flow_schedule import FlowSchedule
from model.generation import Sampler
from model.local_head import LocalFlowHead
from model.rotary import rotary_table
from model.sampling import (
    BlockOutput,
    GenerationRequest,
    GenerationState,
    SamplingOptions,
)
from model.slot_passes import Passes, Shape
from model.slots import ROWS, SlotCache, SlotPlan, Slots, SlotSizeError


class SlotSampler(Sampler):
    """Generates with one model in static slots.

    Args:
        model: As for `Sampler`; a GPU pays, a CPU only tests.
        plan: Slots and their sizes.
    """

    def __init__(self, model: AudioCALM, plan: SlotPlan) -> None:
        super().__init__(model)
        self.plan = plan
        self._slots = Slots(model.config, plan, model.device, model.dtype)
        schedule = self._schedule(SamplingOptions().path(is_first=False))
        self._passes = Passes(model, self._slots, plan, schedule)

    @torch.inference_mode()
    def open(self, request: GenerationRequest) -> GenerationState:
        """State of a request in a slot of its own.

        Raises:
            ValueError: If the request does not suit the model.
            SlotSizeError: If its slot would be too small.
            NoSlotError: If every slot is taken.
        """
        self._check_size(request)
        state = super().open(request)
        state.cache = self._slots.take(state.cache)
        return state

    def step(self, states: Sequence[GenerationState]) -> list[BlockOutput]:
        """The next block of every request; those that end give their slots back.

        Raises:
            ValueError: If a request is finished or closed, or given twice.
        """
        running = [state for state in states if not state.is_done]
        try:
            return super().step(states)
        finally:
            # Also those that ended before another group of the step broke down.
            for state in {id(state): state for state in running}.values():
                if state.is_done:
                    self._release(state)

    def close(self, state: GenerationState) -> None:
        """End a request before its last block; one that has ended may be closed again."""
        if not state.is_done:
            state.is_done = True
            self._release(state)

    def _release(self, state: GenerationState) -> None:
        assert isinstance(state.cache, SlotCache)
        self._slots.release(state.cache.slot)

    def _block_step(self, states: list[GenerationState], schedules: list[FlowSchedule]) -> SlotStep:
        return SlotStep(self.model, self._slots, self._passes, states, schedules)

    def _check_size(self, request: GenerationRequest) -> None:
        text = max(len(request.token_ids), len(request.null_ids) if request.is_guided else 0)
        prompt = 0 if request.prompt_latents is None else len(request.prompt_latents)
        frames = prompt + (request.exact_frames or request.max_frames)
        evaluations = max(
            len(self._schedule(request.options.path(is_first=is_first)).points)
            for is_first in (True, False)
        )
        for what, name, value, limit in (
            ("text", "prefix tokens", text, self.plan.num_text),
            ("frames", "frames", frames, self.plan.num_frames),
            ("evaluations", "evaluations a block", evaluations, self.plan.num_evaluations),
        ):
            if value > limit:
                raise SlotSizeError(
                    what, f"the request needs {value} {name}; slots are made for {limit}"
                )


class SlotStep:
    """One block of requests in slots that have equal solver work."""

    def __init__(
        self,
        model: AudioCALM,
        slots: Slots,
        passes: Passes,
        states: list[GenerationState],
        schedules: list[FlowSchedule],
    ) -> None:
        self.model, self.slots, self.passes = model, slots, passes
        self.states, self.schedules = states, schedules
        self.caches = [state.cache for state in states if isinstance(state.cache, SlotCache)]
        assert len(self.caches) == len(states)
        self.frames = slots.frames
        self.is_local = isinstance(model.flow_head, LocalFlowHead)
        taken = [cache.slot for cache in self.caches]
        self.slot = torch.tensor(taken, device=model.device)
        self.row = torch.tensor([ROWS * s + r for s in taken for r in range(ROWS)]).to(model.device)
        used = slots.scratch + max(cache.num_slots for cache in self.caches)
        self.shape = Shape(
            slots.rows_for(max(taken) + 1),
            slots.width_for(used),
            any(state.request.uses_expert for state in states),
        )

    def run(self) -> list[BlockOutput]:
        """The block of every request; their states move on."""
        has_pending = any(state.pending is not None for state in self.states)
        self._fill()
        if self.is_local:
            self.passes.condition(self.shape, writes_pending=has_pending)
        for index in range(len(self.schedules[0].points)):
            writes = has_pending and index == 0 and not self.is_local
            self.passes.evaluate(self.shape, writes_pending=writes)
        latents = self.passes.buffers.state[self.slot]
        stop: list[list[float]] | None = None
        if any(may_stop(state) for state in self.states):
            self.passes.write(self.shape)
            hidden = self.passes.buffers.hidden
            stop = self.model.stop_head(hidden[ROWS * self.slot]).sigmoid().tolist()
        self._commit(has_clean_block=stop is not None)
        return finished(self.states, latents, self.model.denormalise(latents), stop)

    def _fill(self) -> None:
        """Everything of this block that passes read; between the passes nothing waits."""
        buffers, device = self.passes.buffers, self.model.device
        latent_dim = self.model.config.latent_dim
        buffers.state[self.slot] = initial_noise(self.states, latent_dim).to(device)
        buffers.point[self.slot] = buffers.state[self.slot]
        noise = step_noise(self.states, self.schedules, latent_dim)
        added = buffers.noise[: len(self.schedules[0].points)]
        added[:, self.slot] = 0.0 if noise is None else noise.to(device)
        for cache, state in zip(self.caches, self.states, strict=True):
            # Zeros, not what the last request left: a masked block counts 0 x itself.
            buffers.pending[cache.slot] = 0.0 if state.pending is None else state.pending
        buffers.evaluation.zero_()
        self._fill_schedules()
        masks = [self._masks(*pair) for pair in zip(self.caches, self.states, strict=True)]
        for own, visible in zip(
            (buffers.block_bias, buffers.pending_bias), zip(*masks, strict=True), strict=True
        ):
            hidden = ~torch.cat(visible)[:, None, None]
            bias = torch.zeros(hidden.shape).masked_fill_(hidden, -torch.inf)
            own[self.row] = bias.to(device, own.dtype)
        backbone = self.model.config.backbone
        tables = rotary_table(self._positions(), backbone.head_dim, backbone.rope_theta)
        for own, table in zip((buffers.cosine, buffers.sine), tables, strict=True):
            own[self.row] = table.to(device, own.dtype)
        uses = [float(s.request.uses_expert) for s in self.states for _ in range(ROWS)]
        buffers.routed[self.row] = torch.tensor(uses)[:, None, None].to(device, self.model.dtype)

    def _fill_schedules(self) -> None:
        buffers, schedules = self.passes.buffers, self.schedules
        times, device = len(schedules[0].points), self.model.device
        is_state = torch.tensor(schedules[0].is_state)
        buffers.is_state[:times] = is_state[:, None, None].to(device)
        options = [state.request.options for state in self.states]
        scale = [
            [o.guidance_scale if is_guided else 1.0 for o in options]
            for is_guided in schedules[0].is_guided
        ]
        buffers.guidance_scale[:times, self.slot] = torch.tensor(scale).to(device)
        # Without guidance the unconditional velocity must not be scaled either.
        zero_star = [
            float(o.cfg_zero_star and cache.num_rows > 1)
            for o, cache in zip(options, self.caches, strict=True)
        ]
        buffers.zero_star[self.slot] = torch.tensor(zero_star).to(device)
        rescale = [
            o.guidance_rescale * (cache.num_rows > 1)
            for o, cache in zip(options, self.caches, strict=True)
        ]
        buffers.rescale[self.slot] = torch.tensor(rescale).to(device)
        heat = torch.tensor([o.sde_temperature for o in options])
        buffers.sde_temperature[self.slot] = heat[:, None, None].to(device)
        for cache, schedule in zip(self.caches, schedules, strict=True):
            buffers.table[:times, cache.slot] = schedule.table
            for own, values in (
                (buffers.times, [point.time for point in schedule.points]),
                (buffers.moves, [point.move for point in schedule.points]),
            ):
                own[:times, cache.slot] = torch.cat(values)

    def _masks(self, cache: SlotCache, state: GenerationState) -> tuple[Tensor, Tensor]:
        """What the current and the pending block of a request see, of all places."""
        has_pending = state.pending is not None
        places = self.slots.size - self.slots.scratch
        scratch = torch.tensor([has_pending, True]).repeat_interleave(self.frames)
        own = torch.tensor([True, False]).repeat_interleave(self.frames)
        rows = []
        for seen, hides_oldest in ((scratch, has_pending), (own, False)):
            kept = cache.visible_slots(places, hides_oldest=hides_oldest)
            # Without guidance the second row stands for the first again.
            kept = kept.expand(ROWS, -1) if cache.num_rows == 1 else kept
            rows.append(torch.cat([seen.expand(ROWS, -1), kept], dim=1))
        return rows[0], rows[1]

    def _positions(self) -> Tensor:
        """Rotary positions of the frames of pending and current block in every row."""
        starts = []
        for cache, state in zip(self.caches, self.states, strict=True):
            padding = cache.left_padding * (ROWS // cache.num_rows)
            first = cache.prefix_slots + (state.block_index - 1) * self.frames
            starts += [first - pad for pad in padding]
        frames = torch.arange(2 * self.frames)
        return (torch.tensor(starts)[:, None] + frames).clamp_min(0)

    def _commit(self, *, has_clean_block: bool) -> None:
        for cache, state in zip(self.caches, self.states, strict=True):
            if state.pending is not None:
                cache.append(*self.slots.scratch_block(cache, 0))
            if has_clean_block:
                cache.append(*self.slots.scratch_block(cache, 1))
