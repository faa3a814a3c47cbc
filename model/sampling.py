"""What is asked of the sampler, what it keeps of a request, and what it gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from model.flow import EVALUATIONS_PER_STEP, Solver, TimeGrid, time_grid
from model.kv_cache import KVCache


class FlowPath(NamedTuple):
    """What fixes the flow times that a solver visits, and at which of them guidance acts."""

    time_grid: TimeGrid
    num_flow_steps: int
    grid_shift: float
    solver: Solver
    guidance_interval: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """How a request is sampled.

    Raises:
        ValueError: If a value is out of range.
    """

    num_flow_steps: int = 16
    """Solver steps a block."""
    guidance_scale: float = 2.0
    """w of v_u + w (v_c - v_u); 1 is no guidance and half the work."""
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    """Flow times between which guidance acts; outside, the unconditional velocity is not computed
    (arXiv:2404.07724)."""
    first_flow_steps: int | None = None
    """Solver steps of the first block, where fewer bring the first audio sooner; None takes
    `num_flow_steps`."""
    solver: Solver = "euler"
    """euler, one evaluation a step; midpoint, two."""
    time_grid: TimeGrid = "sway"
    """Spacing of the flow times."""
    grid_shift: float = 3.0
    """Only read by the grid `shift`."""
    cfg_zero_star: bool = False
    """Scale v_u to its projection on v_c first."""
    guidance_rescale: float = 0.0
    """How far, 0 to 1, the guided velocity is brought back to the spread of v_c, against the loud
    and saturated results of strong guidance (arXiv:2305.08891)."""
    temperature: float = 1.0
    """Variance of the initial noise."""
    sde_temperature: float = 0.0
    """Noise that the solver adds on the way and takes away again; 0 is the deterministic flow."""
    stop_threshold: float = 0.5
    """Probability of `end_of_audio` above which a frame is the last; lower ends earlier."""

    def __post_init__(self) -> None:
        time_grid(self.time_grid, self.num_flow_steps, self.grid_shift)
        if self.solver not in EVALUATIONS_PER_STEP:
            raise ValueError(f"solver {self.solver!r}; use euler or midpoint")
        if self.first_flow_steps is not None and self.first_flow_steps < 1:
            raise ValueError(f"first_flow_steps is {self.first_flow_steps}; it must be at least 1")
        start, end = self.guidance_interval
        if not 0 <= start <= end <= 1:
            raise ValueError(
                f"guidance_interval {self.guidance_interval} must lie in [0, 1], in order"
            )
        if not 0 <= self.guidance_scale <= 100:
            raise ValueError(f"guidance_scale {self.guidance_scale} is outside [0, 100]")
        if not 0 <= self.temperature <= 4:
            raise ValueError(f"temperature {self.temperature} is outside [0, 4]")
        if not 0 <= self.sde_temperature <= 4:
            raise ValueError(f"sde_temperature {self.sde_temperature} is outside [0, 4]")
        if not 0 <= self.guidance_rescale <= 1:
            raise ValueError(f"guidance_rescale {self.guidance_rescale} is outside [0, 1]")
        if not 0 < self.stop_threshold < 1:
            raise ValueError(f"stop_threshold {self.stop_threshold} is outside (0, 1)")

    def path(self, *, is_first: bool) -> FlowPath:
        """The solver path of a block, the first or another."""
        steps = self.first_flow_steps if is_first else None
        return FlowPath(
            self.time_grid,
            steps or self.num_flow_steps,
            self.grid_shift,
            self.solver,
            self.guidance_interval,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class GenerationRequest:
    """One utterance, sound or piece to generate.

    Raises:
        ValueError: If a length is out of range.
    """

    token_ids: tuple[int, ...]
    """Prefix."""
    null_ids: tuple[int, ...]
    """Prefix of the unconditional row."""
    uses_expert: bool
    """Whether the rows route to the expert."""
    seed: int
    """Same seed, same latents."""
    max_frames: int
    """Frames at which it ends in any case."""
    min_frames: int = 1
    """Frames before which it does not stop."""
    exact_frames: int | None = None
    """Frames to generate; the stop decision is not asked."""
    speaker: Float[Tensor, " speaker_dim"] | None = None
    """Voice, with the speaker token in `token_ids`."""
    prompt_latents: Float[Tensor, "frames latent_dim"] | None = None
    """Raw codec latents to continue; an incomplete block at their front is left out."""
    options: SamplingOptions = field(default_factory=SamplingOptions)
    """How it is sampled."""

    def __post_init__(self) -> None:
        if not self.token_ids:
            raise ValueError("token_ids is empty; the prefix needs at least one token")
        if not self.null_ids and self.is_guided:
            raise ValueError("null_ids is empty; guidance needs an unconditional prefix")
        if not 1 <= self.min_frames <= self.max_frames:
            raise ValueError(
                f"min_frames {self.min_frames} and max_frames {self.max_frames}; "
                "they must be at least 1 and in order"
            )
        if self.exact_frames is not None and self.exact_frames < 1:
            raise ValueError(f"exact_frames is {self.exact_frames}; it must be at least 1")

    @property
    def is_guided(self) -> bool:
        """Whether it needs an unconditional row."""
        return self.options.guidance_scale != 1.0


@dataclass(eq=False)
class GenerationState:
    """Everything a request needs for its next block; `Sampler.step` advances it in place.

    Attributes:
        request: What was asked.
        cache: Keys and values of its rows.
        generator: Source of its noise, on the CPU, whatever the device of the model.
        block_index: Next block, prompt blocks counted.
        num_frames: Valid frames generated so far.
        pending: Normalised last block, not yet in the cache.
        is_done: Whether the last block was given.
    """

    request: GenerationRequest
    cache: KVCache
    generator: torch.Generator
    block_index: int
    num_frames: int = 0
    pending: Float[Tensor, "block_frames latent_dim"] | None = None
    is_done: bool = False

    @property
    def path(self) -> FlowPath:
        """The solver path of the next block."""
        return self.request.options.path(is_first=self.num_frames == 0)


@dataclass(frozen=True, eq=False)
class BlockOutput:
    """One block of a request.

    Attributes:
        latents: Raw codec latents, all frames of the block.
        num_valid_frames: Frames that belong to the result; fewer only in the last block.
        is_last: Whether the request is finished.
    """

    latents: Float[Tensor, "block_frames latent_dim"]
    num_valid_frames: int
    is_last: bool
