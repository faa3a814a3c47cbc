"""Values of the sampler: options, requests, the state of a request, and the blocks generated."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from model.config import MAX_GUIDANCE_SCALE
from model.inference.cache import CacheRows
from model.sequence import AudioPositions


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """Sampling options of a request.

    Raises:
        ValueError: If a value is out of range.
    """

    num_flow_steps: int = 16
    """Euler steps of each block, at least 1; time grows with it. 4 lose nothing on spoken digits
    (BENCHMARKS.md)."""
    guidance_scale: float = 2.0
    """Guidance w of v_u + w (v_c - v_u), 0 to 100; 1 is no guidance and half the work. 2 is the
    default of VoxCPM, which writes guidance the same way."""
    temperature: float = 1.0
    """Variance of the initial noise, 0 to 4, as in pocket-tts; lower is less varied."""
    stop_threshold: float = 0.5
    """Probability of `end_of_audio` above which a frame is the last, 0 to 1; lower ends earlier."""

    def __post_init__(self) -> None:
        steps = self.num_flow_steps
        if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
            raise ValueError(f"num_flow_steps is {steps!r}; it must be an integer of at least 1")
        ranges = {"guidance_scale": MAX_GUIDANCE_SCALE, "temperature": 4, "stop_threshold": 1}
        for name, high in ranges.items():
            value = getattr(self, name)
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or not 0 <= value <= high:
                raise ValueError(f"{name} is {value!r}; it must be a number in [0, {high:g}]")

    @property
    def is_guided(self) -> bool:
        """Whether an unconditional row is needed."""
        return self.guidance_scale != 1.0


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
    """Frames to generate, whatever the model predicts; None lets the durations of the words decide
    in paced speech, else the stop head."""
    num_words: int = 0
    """Transcript tokens at the end of the prefix, along which the audio of a model that paces
    speech runs; 0 has no transcript."""
    num_prompt_words: int = 0
    """How many of these the prompt speaks."""
    speed: float = 1.0
    """Divides the predicted durations of what follows the prompt; 2 speaks twice as fast."""
    position_rate: float = 1.0
    """Rotary positions from one frame to the next where no words pace the audio."""
    speaker: Float[Tensor, " speaker_dim"] | None = None
    """Voice, with the speaker token in `token_ids`."""
    prompt_latents: Float[Tensor, "frames latent_dim"] | None = None
    """Raw codec latents to continue; an incomplete block at their front is left out."""
    options: SamplingOptions = field(default_factory=SamplingOptions)
    """How it is sampled."""

    def __post_init__(self) -> None:
        if not self.token_ids:
            raise ValueError("token_ids is empty; the prefix needs at least one token")
        if not self.null_ids and self.options.is_guided:
            raise ValueError("null_ids is empty; guidance needs an unconditional prefix")
        if not 1 <= self.min_frames <= self.max_frames:
            raise ValueError(
                f"min_frames {self.min_frames} and max_frames {self.max_frames}; "
                "they must be at least 1 and in order"
            )
        if self.exact_frames is not None and self.exact_frames < 1:
            raise ValueError(f"exact_frames is {self.exact_frames}; it must be at least 1")
        if not 0 <= self.num_words < len(self.token_ids):
            raise ValueError(
                f"num_words is {self.num_words}; the prefix has {len(self.token_ids)} tokens, of "
                "which the last is no word"
            )
        if not 0 <= self.num_prompt_words <= self.num_words:
            raise ValueError(
                f"num_prompt_words is {self.num_prompt_words} of {self.num_words} words; it must "
                "lie between 0 and these"
            )
        if not self.speed > 0:
            raise ValueError(f"speed is {self.speed}; it must be positive")

    @property
    def frame_limit(self) -> int:
        """Largest number of frames generated."""
        return self.max_frames if self.exact_frames is None else self.exact_frames


@dataclass(eq=False)
class GenerationState:
    """Everything a request needs for its next block; `Sampler.step` advances it in place.

    Attributes:
        request: The request.
        cache: Its rows of the sampler's cache; freed when it ends.
        generator: Source of its noise, on the CPU whatever the device of the model.
        positions: Rotary positions of the audio in each row.
        block_index: Next block, prompt blocks counted.
        num_frames: Valid frames generated so far.
        pending: Normalised last block whose keys are not in the cache yet.
        is_done: Whether it has ended: its last block was returned, or it was closed.
        is_cut: Whether its words take longer than it may.
    """

    request: GenerationRequest
    cache: CacheRows
    generator: torch.Generator
    positions: tuple[AudioPositions, ...]
    block_index: int
    num_frames: int = 0
    pending: Float[Tensor, "block_frames latent_dim"] | None = None
    is_done: bool = False
    is_cut: bool = False

    @property
    def rank(self) -> tuple[int, int]:
        """Order inside a step: most flow steps first, then as the rows stand in the cache."""
        return -self.request.options.num_flow_steps, self.cache.rows.start

    @property
    def may_stop(self) -> bool:
        """Whether the stop decision of the next block counts."""
        frames = self.num_frames + self.cache.memory.frames_per_block
        return self.request.exact_frames is None and frames >= self.request.min_frames

    def initial_noise(self, latent_dim: int) -> Float[Tensor, "block_frames latent_dim"]:
        """Noise from which the next block starts, on the CPU; every request draws its own."""
        shape = (self.cache.memory.frames_per_block, latent_dim)
        noise = torch.randn(shape, generator=self.generator)
        return noise * self.request.options.temperature**0.5

    def advance(
        self, latents: Float[Tensor, "block_frames latent_dim"], stop: list[float] | None
    ) -> tuple[int, bool]:
        """Advance by a finished block.

        Args:
            latents: The block, normalised.
            stop: Probability of `end_of_audio` of each frame; None where the keys of the block are
                not in the cache yet.

        Returns:
            Frames of the block that count, and whether the request ends with them.
        """
        valid, is_last = self._valid_frames(len(latents), stop if self.may_stop else None)
        self.block_index += 1
        self.num_frames += valid
        self.pending = latents if stop is None and not is_last else None
        self.is_done = is_last
        return valid, is_last

    def _valid_frames(self, block_frames: int, stop: list[float] | None) -> tuple[int, bool]:
        """Frames of a block that count, and whether the request ends with them."""
        request = self.request
        for frame in range(block_frames):
            total = self.num_frames + frame + 1
            is_stop = stop is not None and stop[frame] > request.options.stop_threshold
            if total >= request.frame_limit or (is_stop and total >= request.min_frames):
                return frame + 1, True
        return block_frames, False


@dataclass(frozen=True, eq=False)
class BlockOutput:
    """One block of a request.

    Attributes:
        latents: Raw codec latents, all frames of the block.
        num_valid_frames: Frames that belong to the result; fewer only in the last block.
        is_last: Whether the request has ended.
    """

    latents: Float[Tensor, "block_frames latent_dim"]
    num_valid_frames: int
    is_last: bool
