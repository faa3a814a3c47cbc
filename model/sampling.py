"""What is asked of the sampler, what it keeps of a request, and what it gives."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from model.flow import TimeGrid, time_grid
from model.kv_cache import KVCache


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """How a request is sampled.

    Raises:
        ValueError: If a value is out of range.
    """

    num_flow_steps: int = 16
    """Solver steps a block."""
    guidance_scale: float = 2.0
    """Guidance w of v_u + w (v_c - v_u); 1 is no guidance and half the work."""
    time_grid: TimeGrid = "sway"
    """Spacing of the flow times."""
    temperature: float = 1.0
    """Variance of the initial noise; less is more typical and less varied."""
    stop_threshold: float = 0.5
    """Probability of `end_of_audio` above which a frame is the last; lower ends earlier."""

    def __post_init__(self) -> None:
        time_grid(self.time_grid, self.num_flow_steps)
        if not 0 <= self.guidance_scale <= 100:
            raise ValueError(f"guidance_scale {self.guidance_scale} is outside [0, 100]")
        if not 0 <= self.temperature <= 4:
            raise ValueError(f"temperature {self.temperature} is outside [0, 4]")
        if not 0 < self.stop_threshold < 1:
            raise ValueError(f"stop_threshold {self.stop_threshold} is outside (0, 1)")


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
