"""One block of requests that step together: noise, flow against the cache, clean write, stop.

Under the thin head every flow evaluation is a pass of the backbone, and the clean write is fused
with the first evaluation of the next block where nothing waits for it. Under the local head the
clean write is the only pass of the backbone. Where the stop decision waits for it, it is a pass
of its own at the end of the block: the logit comes from that pass, and waiting for the next block
would delay every packet by one.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor

from model.attention import Attend
from model.audiocalm import AudioCALM
from model.experts import route_rows
from model.flow import evaluation_times, guided_velocity, solver_step, time_grid
from model.flow_head import ThinFlowHead
from model.kv_cache import StepCache
from model.local_head import LocalFlowHead
from model.sampling import BlockContext, BlockOutput, FlowPath, GenerationState


@dataclass(frozen=True, eq=False)
class FlowSchedule:
    """All that a solver path needs of flow time, for its evaluations in order.

    Attributes:
        grid: Flow times between which it steps.
        embedding: What marks the frames of a noisy block in the backbone; None under the local
            head.
        modulations: Of the head's layers, each `times 1 width`.
    """

    grid: Float[Tensor, " grid"]
    embedding: Float[Tensor, "times 1 hidden"] | None
    modulations: list[Tensor]


@torch.no_grad()
def flow_schedule(model: AudioCALM, path: FlowPath) -> FlowSchedule:
    """Time embeddings and modulations of a solver path under the present weights."""
    grid = time_grid(path.time_grid, path.num_flow_steps, path.grid_shift).to(model.device)
    times = evaluation_times(grid, path.solver)[:, None]
    embedding = None if model.time_embedding is None else model.embed_time(times)
    return FlowSchedule(grid, embedding, model.flow_head.modulations(times))


class _Rows:
    """Requests and their rows: conditional, then unconditional under guidance."""

    def __init__(self, states: Sequence[GenerationState], device: torch.device) -> None:
        counts = [state.cache.num_rows for state in states]
        self.request = [index for index, count in enumerate(counts) for _ in range(count)]
        self.states = states
        self._index = torch.tensor(self.request, device=device)
        self._conditional = torch.tensor([0, *itertools.accumulate(counts)][:-1], device=device)
        self._guided = torch.tensor([i for i, n in enumerate(counts) if n > 1], device=device)
        self._is_single = len(states) == len(self.request)
        self._is_paired = all(count > 1 for count in counts)
        options = [state.request.options for state, n in zip(states, counts, strict=True) if n > 1]
        self._scale = torch.tensor([o.guidance_scale for o in options], device=device)
        self._zero_star = None
        if any(o.cfg_zero_star for o in options):
            uses = [float(o.cfg_zero_star) for o in options]
            self._zero_star = torch.tensor(uses, device=device)

    def spread(self, of_requests: Tensor) -> Tensor:
        """The value of every row, given that of every request."""
        return of_requests if self._is_single else of_requests[self._index]

    def conditional(self, of_rows: Tensor) -> Tensor:
        """The first row of every request."""
        return of_rows if self._is_single else of_rows[self._conditional]

    def guide(self, velocity: Tensor) -> Tensor:
        """Velocity of every request, given that of every row."""
        if self._is_single:
            return velocity
        if self._is_paired:
            conditional, unconditional = rearrange(velocity, "(b g) f d -> g b f d", g=2)
            return guided_velocity(conditional, unconditional, self._scale, self._zero_star)
        conditional = velocity[self._conditional]
        guided = guided_velocity(
            conditional[self._guided],
            velocity[self._conditional[self._guided] + 1],
            self._scale,
            self._zero_star,
        )
        return conditional.index_copy(0, self._guided, guided)


class BlockStep(ABC):
    """One block of requests with equal solver work; the heads differ in how they evaluate.

    Args:
        model: Of all requests.
        states: Move on by one block.
        schedules: Of the solver path of every request.
    """

    def __init__(
        self, model: AudioCALM, states: list[GenerationState], schedules: list[FlowSchedule]
    ) -> None:
        self.model, self.states = model, states
        self.frames = model.config.frames_per_block
        self.schedules = schedules
        self.rows = _Rows(states, model.device)
        self.has_pending = [state.pending is not None for state in states]
        self.cache = StepCache([state.cache for state in states], self.has_pending)
        self.attention = self.cache.block_attention()
        self.position = self._positions()
        self.rotary = model.backbone.rotary(self.position, model.dtype)
        self.evaluation = 0

    def run(self) -> list[BlockOutput]:
        """The block of every request; their states move on."""
        self._begin()
        latents = self._integrate()
        stop: list[list[float]] | None = None
        if any(self._may_stop(state) for state in self.states):
            hidden = self._backbone(self._clean_rows(latents), self.rotary, self.attention)
            self._note_clean(hidden, latents, [True] * len(self.states))
            stop = self.model.stop_head(self.rows.conditional(hidden)).sigmoid().tolist()
        self.cache.commit(has_clean_block=stop is not None)
        raw = self.model.denormalise(latents)
        outputs = []
        for index, state in enumerate(self.states):
            decision = stop[index] if stop is not None and self._may_stop(state) else None
            valid, is_last = _valid_frames(state, self.frames, decision)
            state.block_index += 1
            state.num_frames += valid
            state.pending = latents[index] if stop is None and not is_last else None
            state.is_done = is_last
            outputs.append(BlockOutput(raw[index], valid, is_last))
        return outputs

    def _begin(self) -> None:  # noqa: B027  # optional: the thin head needs none
        """What precedes the first evaluation."""

    def _note_clean(self, hidden: Tensor, latents: Tensor, is_new: list[bool]) -> None:  # noqa: B027  # likewise
        """Take in the states of clean blocks of those requests that are marked."""

    @abstractmethod
    def _evaluate(self, noisy_latents: Tensor) -> Tensor:
        """Velocity of every row at the flow time of this evaluation."""

    def _integrate(self) -> Float[Tensor, "batch block_frames latent_dim"]:
        """Flow from noise to a clean block, state and times in float32."""
        device, latent_dim = self.model.device, self.model.config.latent_dim
        noise = [
            torch.randn(self.frames, latent_dim, generator=state.generator)
            * state.request.options.temperature**0.5
            for state in self.states
        ]
        latents = torch.stack(noise).to(device)
        grid = torch.stack([schedule.grid for schedule in self.schedules], dim=1)
        solver = self.states[0].request.options.solver
        for start, end in itertools.pairwise(grid):
            latents = solver_step(self._velocity, latents, start, end, solver)
        return latents

    def _velocity(self, noisy_latents: Tensor, flow_time: Tensor) -> Tensor:
        """Guided velocity of every request; the schedules know the flow time."""
        velocity = self.rows.guide(self._evaluate(noisy_latents))
        self.evaluation += 1
        return velocity

    def _of_schedules(self, values: list[Tensor]) -> Tensor:
        """This evaluation's part of what the schedules hold, for the rows."""
        if all(schedule is self.schedules[0] for schedule in self.schedules):
            return values[0][self.evaluation][None]
        return self.rows.spread(torch.stack([value[self.evaluation] for value in values]))

    def _modulations(self) -> list[Tensor]:
        of_layers = zip(*(schedule.modulations for schedule in self.schedules), strict=True)
        return [self._of_schedules(list(values)) for values in of_layers]

    def _clean_rows(self, latents: Tensor) -> Tensor:
        return self.rows.spread(self.model.embed_clean(latents))

    def _pending(self) -> Float[Tensor, "batch block_frames latent_dim"]:
        """The blocks still to be written; zeros, which nothing reads, where there is none."""
        nothing = torch.zeros(self.frames, self.model.config.latent_dim, device=self.model.device)
        blocks = [nothing if state.pending is None else state.pending for state in self.states]
        return torch.stack(blocks)

    def _backbone(
        self, embeddings: Tensor, rotary: tuple[Tensor, Tensor], attention: Attend
    ) -> Float[Tensor, "rows seq hidden"]:
        uses = [self.states[index].request.uses_expert for index in self.rows.request]
        route = route_rows(uses, embeddings.shape[1], self.model.device)
        hidden: Tensor = self.model.backbone(embeddings, rotary, attention, route)
        return hidden

    def _positions(self) -> Tensor:
        """Rotary positions of the block's frames in every row."""
        starts = [
            state.cache.prefix_slots - pad + state.block_index * self.frames
            for state in self.states
            for pad in state.cache.left_padding
        ]
        frames = repeat(torch.arange(self.frames), "f -> r f", r=len(starts))
        return (torch.tensor(starts)[:, None] + frames).to(self.model.device)

    def _may_stop(self, state: GenerationState) -> bool:
        request = state.request
        return request.exact_frames is None and (
            state.num_frames + self.frames >= request.min_frames
        )


class ThinBlockStep(BlockStep):
    """Every evaluation is a pass of the backbone; the first also writes the pending blocks."""

    def _evaluate(self, noisy_latents: Tensor) -> Tensor:
        assert isinstance(self.model.flow_head, ThinFlowHead)
        embeddings = self.model.latent_proj(noisy_latents.to(self.model.dtype))
        marks = [s.embedding for s in self.schedules if s.embedding is not None]
        embeddings = self.rows.spread(embeddings) + self._of_schedules(marks)
        if self.evaluation == 0 and any(self.has_pending):
            hidden = self._with_pending(embeddings)
        else:
            hidden = self._backbone(embeddings, self.rotary, self.attention)
        return self.model.flow_head.velocity(hidden, self._modulations())

    def _with_pending(self, noisy: Tensor) -> Float[Tensor, "rows block_frames hidden"]:
        both = torch.cat([(self.position - self.frames).clamp_min(0), self.position], dim=1)
        hidden = self._backbone(
            torch.cat([self._clean_rows(self._pending()), noisy], dim=1),
            self.model.backbone.rotary(both, self.model.dtype),
            self.cache.fused_attention(),
        )
        # Contiguous, or the head's first product becomes one for every row.
        return hidden[:, self.frames :].contiguous()


class LocalBlockStep(BlockStep):
    """The backbone writes the pending blocks; evaluations are the head's alone."""

    def _begin(self) -> None:
        assert isinstance(self.model.flow_head, LocalFlowHead)
        if any(self.has_pending):
            pending = self._pending()
            before = (self.position - self.frames).clamp_min(0)
            hidden = self._backbone(
                self._clean_rows(pending),
                self.model.backbone.rotary(before, self.model.dtype),
                self.cache.pending_attention(),
            )
            self._note_clean(hidden, pending, self.has_pending)
        contexts = [state.context for state in self.states if state.context is not None]
        latents = torch.stack([context.latents for context in contexts])
        is_audio = torch.tensor([[c.is_audio] for c in contexts], device=self.model.device)
        self.context = self.model.flow_head.context(
            torch.cat([context.hidden for context in contexts]),
            self.rows.spread(latents),
            self.rows.spread(is_audio.expand(-1, self.frames)),
        )

    def _note_clean(self, hidden: Tensor, latents: Tensor, is_new: list[bool]) -> None:
        counts = [state.cache.num_rows for state in self.states]
        of_requests = zip(self.states, hidden.split(counts), latents, is_new, strict=True)
        for state, states_of, block, is_marked in of_requests:
            if is_marked:
                state.context = BlockContext(states_of, block, is_audio=True)

    def _evaluate(self, noisy_latents: Tensor) -> Tensor:
        assert isinstance(self.model.flow_head, LocalFlowHead)
        return self.model.flow_head.velocity(
            self.rows.spread(noisy_latents), self.context, self._modulations()
        )


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
