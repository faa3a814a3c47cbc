"""One block of requests that step together: noise, flow, clean write, stop decision.

A block starts as noise. `num_flow_steps` Euler steps carry it to clean latents; every step needs
the velocity, guided between the conditional and the unconditional row of the request. Under the
thin head a velocity is a pass of the backbone over the noisy block. Under the local head one pass
over blank frames precedes the steps, and the head alone gives the velocities.

The keys and values of a finished block are written by a clean pass. It is fused with the first
pass of the next block, except where the stop decision is needed: the stop head reads the states
of the clean pass, and waiting for the next block would delay every packet by one.

Each request has its own flow times, so requests of any mix share their passes; one with fewer
steps drops out of the later evaluations.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from model.attention import Attend
from model.audiocalm import AudioCALM
from model.backbone import BackboneLike
from model.experts import Route, route_rows
from model.flow import guided_velocity
from model.heads import LocalFlowHead
from model.inference.generation import GenerationState
from model.inference.schedule import FlowPoint, FlowSchedule, stacked
from model.inference.step_cache import StepCache
from model.rotary import Rotary


class _Rows:
    """The rows of requests: the conditional one, then under guidance the unconditional one."""

    def __init__(self, states: Sequence[GenerationState], device: torch.device) -> None:
        counts = [state.cache.num_rows for state in states]
        first = [0, *itertools.accumulate(counts)][:-1]
        guided = [index for index, count in enumerate(counts) if count > 1]
        scales = [states[index].request.options.guidance_scale for index in guided]
        self.request = [index for index, count in enumerate(counts) for _ in range(count)]
        self._index = torch.tensor(self.request, device=device)
        self._conditional = torch.tensor(first, device=device)
        self._guided = torch.tensor(guided, dtype=torch.int64, device=device)
        self._scale = torch.tensor(scales, device=device)
        self._is_single = not guided

    def repeat(self, values: Float[Tensor, " batch *rest"]) -> Float[Tensor, " rows *rest"]:
        """The value of each request, for each of its rows."""
        if self._is_single:
            return values
        if len(values) == 1:
            # Contiguous, or the next product is computed row by row.
            return values.expand(len(self.request), *values.shape[1:]).contiguous()
        return values[self._index]

    def conditional(self, values: Float[Tensor, " rows *rest"]) -> Float[Tensor, " batch *rest"]:
        """The value of the conditional row of each request."""
        return values if self._is_single else values[self._conditional]

    def guide(
        self, velocity: Float[Tensor, "rows block_frames latent_dim"]
    ) -> Float[Tensor, "batch block_frames latent_dim"]:
        """The guided velocity of each request."""
        if self._is_single:
            return velocity
        conditional = velocity[self._conditional]
        unconditional = velocity[self._conditional[self._guided] + 1]
        guided = guided_velocity(conditional[self._guided], unconditional, self._scale)
        return conditional.index_copy(0, self._guided, guided)


@dataclass(frozen=True, eq=False)
class _Pass:
    """Inputs of a backbone pass besides the embeddings."""

    rotary: list[Rotary]
    attention: Attend
    route: Route | None
    words: Float[Tensor, "rows seq hidden"] | None


class Block:
    """One block of requests.

    Args:
        model: The model all requests share.
        backbone: Its backbone, or a faster form of it.
        states: The requests, those with most flow steps first. Their caches move on; the states
            themselves do not.
        schedules: The evaluations of each.
    """

    def __init__(
        self,
        model: AudioCALM,
        backbone: BackboneLike,
        states: Sequence[GenerationState],
        schedules: Sequence[FlowSchedule],
    ) -> None:
        self._model, self._backbone = model, backbone
        self._states, self._schedules = states, schedules
        self._frames = self._model.config.frames_per_block
        self._has_pending = [state.pending is not None for state in states]
        self._cache = StepCache([state.cache for state in states], self._has_pending)
        # By the number of requests that still take part: those with fewer steps drop out.
        self._rows: dict[int, _Rows] = {}
        self._passes: dict[int, _Pass] = {}

    def run(
        self,
    ) -> tuple[Float[Tensor, "batch block_frames latent_dim"], list[list[float]] | None]:
        """Normalised latents of the block, and the stop probability of each frame.

        The latter is None where no request needs it; the clean pass is then left to the next
        block.
        """
        latents = self._integrate()
        stop: list[list[float]] | None = None
        if any(state.may_stop for state in self._states):
            rows, by = self._rows_of(len(latents)), self._pass_of(len(latents))
            hidden = self._run(rows.repeat(self._model.embed_clean(latents)), by)
            stop = self._model.stop_head(rows.conditional(hidden)).sigmoid().tolist()
        self._cache.commit(has_clean_block=stop is not None)
        return latents, stop

    def _integrate(self) -> Float[Tensor, "batch block_frames latent_dim"]:
        """Flow from noise to a clean block, latents and times in float32."""
        noise = [state.initial_noise(self._model.config.latent_dim) for state in self._states]
        latents = torch.stack(noise).to(self._model.device)
        for index in range(len(self._schedules[0])):
            active = sum(len(schedule) > index for schedule in self._schedules)
            rows = self._rows_of(active)
            at = stacked([s[index] for s in self._schedules[:active]], rows.request)
            guided = rows.guide(self._velocity(latents[:active], rows, at, is_first=index == 0))
            moved = torch.addcmul(latents[:active], guided, at.move)
            latents = moved if active == len(latents) else torch.cat([moved, latents[active:]])
        return latents

    def _velocity(
        self,
        noisy: Float[Tensor, "batch block_frames latent_dim"],
        rows: _Rows,
        at: FlowPoint,
        *,
        is_first: bool,
    ) -> Float[Tensor, "rows block_frames latent_dim"]:
        """Velocity of rows at noisy latents of their requests.

        The thin head maps the states of a backbone pass over them; the local head needs no pass.
        """
        model, head = self._model, self._model.flow_head
        if isinstance(head, LocalFlowHead):
            condition = self._condition[: len(rows.request)]
            return head.velocity(rows.repeat(noisy), condition, at.modulations, self._angles)
        assert at.embedding is not None
        embeddings = rows.repeat(model.latent_proj(noisy.to(model.dtype))) + at.embedding
        if is_first:
            return head.velocity(self._first_pass(embeddings), at.modulations)
        return head.velocity(self._run(embeddings, self._pass_of(len(noisy))), at.modulations)

    @cached_property
    def _condition(self) -> Float[Tensor, "rows block_frames dim"]:
        """What the local head reads of every block: the states of blank frames in its place."""
        assert isinstance(self._model.flow_head, LocalFlowHead)
        num_rows = len(self._rows_of(len(self._states)).request)
        states = self._first_pass(self._model.embed_blank(num_rows))
        return self._model.flow_head.condition(states)

    @cached_property
    def _angles(self) -> list[Rotary]:
        """Rotary angles of the local head."""
        assert isinstance(self._model.flow_head, LocalFlowHead)
        return self._model.flow_head.angles(self._frames)

    def _first_pass(
        self, block: Float[Tensor, "rows block_frames hidden"]
    ) -> Float[Tensor, "rows block_frames hidden"]:
        """States of all blocks; the same pass writes pending clean blocks to the cache."""
        count = len(self._states)
        if not any(self._has_pending):
            return self._run(block, self._pass_of(count))
        model = self._model
        zeros = torch.zeros(self._frames, model.config.latent_dim, device=model.device)
        pending = [zeros if state.pending is None else state.pending for state in self._states]
        clean = self._rows_of(count).repeat(model.embed_clean(torch.stack(pending)))
        before, current = self._positions(count, blocks_back=1), self._positions(count)
        position = torch.cat([before, current], dim=1)
        by = self._pass(count, position, self._cache.fused_attention())
        # Contiguous, or the head's first product is computed row by row.
        return self._run(torch.cat([clean, block], dim=1), by)[:, self._frames :].contiguous()

    def _run(
        self, embeddings: Float[Tensor, "rows seq hidden"], by: _Pass
    ) -> Float[Tensor, "rows seq hidden"]:
        """States of a backbone pass."""
        if by.words is not None:
            embeddings = embeddings + by.words
        return self._backbone(embeddings, by.rotary, by.attention, by.route)

    def _rows_of(self, count: int) -> _Rows:
        """Rows of the first requests."""
        if count not in self._rows:
            self._rows[count] = _Rows(self._states[:count], self._model.device)
        return self._rows[count]

    def _pass_of(self, count: int) -> _Pass:
        """Pass over the current blocks of the first requests."""
        if count not in self._passes:
            attention = self._cache.block_attention(count)
            self._passes[count] = self._pass(count, self._positions(count), attention)
        return self._passes[count]

    def _pass(self, count: int, position: Tensor, attention: Attend) -> _Pass:
        """Pass over tokens of the first requests at given positions."""
        uses = [self._states[i].request.uses_expert for i in self._rows_of(count).request]
        route = route_rows(uses, position.shape[1], self._model.device)
        rotary = self._backbone.rotary(position, self._model.dtype)
        return _Pass(rotary, attention, route, self._words(count, position))

    def _words(
        self, count: int, position: Float[Tensor, "rows seq"]
    ) -> Float[Tensor, "rows seq hidden"] | None:
        """Word context of the frames of every row; None without transcripts."""
        model, requests = self._model, [state.request for state in self._states[:count]]
        if model.word_context is None or not any(request.num_words for request in requests):
            return None
        words = model.latent_proj.weight.new_zeros(*position.shape, len(model.clean_type))
        row = 0
        for state in self._states[:count]:
            ids, num_words = state.request.token_ids, state.request.num_words
            if num_words:
                token_ids = torch.tensor(ids, device=model.device)
                words[row] = model.words_around(token_ids, num_words, position[row])
            row += len(state.positions)
        return words

    def _positions(self, count: int, *, blocks_back: int = 0) -> Float[Tensor, "rows block_frames"]:
        """Rotary positions of the current blocks of the first requests, or of earlier ones."""
        frames = torch.arange(self._frames)
        rows = [
            at.of(frames + (state.block_index - blocks_back) * self._frames)
            for state in self._states[:count]
            for at in state.positions
        ]
        return torch.stack(rows).clamp_min(0).to(self._model.device)
