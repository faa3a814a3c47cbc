"""Block-by-block generation for many requests at once.

One step draws the noise of a block, integrates its flow against the cache, and writes the clean
block into the cache. The clean write is fused with the first flow evaluation of the next block
where nothing waits for it. Where the stop decision does, it is a pass of its own: the logit of a
block comes from that pass, and waiting for the next block would delay every packet by one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import torch
from einops import repeat
from jaxtyping import Float
from torch import Tensor

from model.attention import Attend, arflow_mask
from model.audiocalm import AudioCALM
from model.batch import check_speaker
from model.experts import Route, route_rows
from model.flow import guided_velocity, solver_step, time_grid
from model.kv_cache import KVCache, PrefillAttention, StepCache
from model.sampling import BlockOutput, GenerationRequest, GenerationState, SamplingOptions
from model.sequence import PADDING, document_layout

__all__ = ["BlockOutput", "GenerationRequest", "GenerationState", "Sampler", "SamplingOptions"]


class Sampler:
    """Generates with one model; holds no state of any request."""

    def __init__(self, model: AudioCALM) -> None:
        self.model = model

    @torch.no_grad()
    def open(self, request: GenerationRequest) -> GenerationState:
        """State of a request before its first block: its prefix and prompt are in the cache.

        Raises:
            ValueError: If the request does not suit the model.
        """
        prompt = self._prompt(request)
        generator = torch.Generator().manual_seed(request.seed)
        cache = self._prefill(request, prompt)
        return GenerationState(request, cache, generator, block_index=cache.num_blocks)

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
            blocks = _BlockStep(self.model, [states[index] for index in members]).run()
            outputs.update(zip(members, blocks, strict=True))
        return [outputs[index] for index in range(len(states))]

    def generate(self, request: GenerationRequest) -> Iterator[BlockOutput]:
        """The blocks of one request."""
        state = self.open(request)
        while not state.is_done:
            yield self.step([state])[0]

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
    ) -> KVCache:
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
        model.backbone(embeddings, position.to(model.device), attention, route)
        return attention.cache(padding, longest, config.frames_per_block, config.window_blocks)

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


class _BlockStep:
    """One block of requests with equal solver work.

    Every request has one row, or two under guidance: conditional, then unconditional.
    """

    def __init__(self, model: AudioCALM, states: list[GenerationState]) -> None:
        self.model, self.states = model, states
        self.frames = model.config.frames_per_block
        device = model.device
        self.request_of_row = [i for i, s in enumerate(states) for _ in range(s.cache.num_rows)]
        first_row = [self.request_of_row.index(i) for i in range(len(states))]
        guided = [i for i, state in enumerate(states) if state.request.is_guided]
        self.rows = torch.tensor(self.request_of_row, device=device)
        self.conditional_rows = torch.tensor(first_row, device=device)
        self.guided = torch.tensor(guided, dtype=torch.int64, device=device)
        self.unconditional_rows = self.conditional_rows[self.guided] + 1
        options = [states[i].request.options for i in guided]
        self.guidance = torch.tensor([o.guidance_scale for o in options], device=device)
        self.zero_star = torch.tensor([float(o.cfg_zero_star) for o in options], device=device)
        self.has_pending = [state.pending is not None for state in states]
        self.cache = StepCache([state.cache for state in states], self.has_pending)
        self.attention = self.cache.block_attention()
        self.position = self._positions()
        self.is_first_evaluation = True

    def run(self) -> list[BlockOutput]:
        """The block of every request; their states move on."""
        latents = self._integrate()
        stop: list[list[float]] | None = None
        if any(self._may_stop(state) for state in self.states):
            stop = self._write_clean(latents)
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

    def _integrate(self) -> Float[Tensor, "batch block_frames latent_dim"]:
        """Flow from noise to a clean block, state and times in float32."""
        device, latent_dim = self.model.device, self.model.config.latent_dim
        options = [state.request.options for state in self.states]
        noise = [
            torch.randn(self.frames, latent_dim, generator=state.generator)
            * state.request.options.temperature**0.5
            for state in self.states
        ]
        grids = [time_grid(o.time_grid, o.num_flow_steps, o.grid_shift) for o in options]
        latents, grid = torch.stack(noise).to(device), torch.stack(grids, dim=1).to(device)
        for start, end in itertools.pairwise(grid):
            latents = solver_step(self._velocity, latents, start, end, options[0].solver)
        return latents

    def _velocity(
        self,
        noisy_latents: Float[Tensor, "batch block_frames latent_dim"],
        flow_time: Float[Tensor, " batch"],
    ) -> Float[Tensor, "batch block_frames latent_dim"]:
        """Guided velocity; the first evaluation also writes the pending blocks."""
        time = flow_time[self.rows][:, None]
        embeddings = self.model.embed_noisy(noisy_latents[self.rows], self.model.embed_time(time))
        if self.is_first_evaluation and any(self.has_pending):
            hidden = self._run_with_pending(embeddings)
        else:
            hidden = self._backbone(embeddings, self.position, self.attention)
        self.is_first_evaluation = False
        velocity = self.model.flow_head(hidden, time)
        conditional = velocity[self.conditional_rows]
        if not len(self.guided):
            return conditional
        guided = guided_velocity(
            conditional[self.guided],
            velocity[self.unconditional_rows],
            self.guidance,
            self.zero_star,
        )
        return conditional.index_copy(0, self.guided, guided)

    def _run_with_pending(
        self, noisy: Float[Tensor, "rows block_frames hidden"]
    ) -> Float[Tensor, "rows block_frames hidden"]:
        nothing = torch.zeros(self.frames, self.model.config.latent_dim, device=self.model.device)
        pending = torch.stack(
            [nothing if state.pending is None else state.pending for state in self.states]
        )
        clean = self.model.embed_clean(pending[self.rows])
        position = torch.cat([(self.position - self.frames).clamp_min(0), self.position], dim=1)
        attention = self.cache.fused_attention()
        hidden = self._backbone(torch.cat([clean, noisy], dim=1), position, attention)
        return hidden[:, self.frames :]

    def _write_clean(
        self, latents: Float[Tensor, "batch block_frames latent_dim"]
    ) -> list[list[float]]:
        """Put the clean block where the noisy one was; gives its stop probabilities."""
        embeddings = self.model.embed_clean(latents[self.rows])
        hidden = self._backbone(embeddings, self.position, self.attention)
        logit = self.model.stop_head(hidden[self.conditional_rows])
        probabilities: list[list[float]] = logit.sigmoid().tolist()
        return probabilities

    def _backbone(self, embeddings: Tensor, position: Tensor, attention: Attend) -> Tensor:
        route = self._route(embeddings.shape[1])
        hidden: Tensor = self.model.backbone(embeddings, position, attention, route)
        return hidden

    def _route(self, num_tokens: int) -> Route | None:
        uses = [self.states[i].request.uses_expert for i in self.request_of_row]
        return route_rows(uses, num_tokens, self.model.device)

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
