"""Estimate of the memory, steps, time, disk space and cost of a training run before it starts.

Everything is arithmetic over the recipe and over what the caller states: documents of one typical
length, the utilisation that the run will reach, and the hardware.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from model.config import ModelConfig
from model.cost import Counts, Sizes, document_counts, sizes, training_flops
from model.sequence import document_length
from model.timebase import num_blocks
from pipeline.errors import SettingsError
from pipeline.training.hardware import (
    Hardware,
    activation_bytes,
    check_limits,
    checkpoint_bytes,
    checkpoint_copy_bytes,
    training_bytes,
)
from pipeline.training.init_from import open_parent
from pipeline.training.lora import num_trained
from pipeline.training.settings import FeedSettings, ModelSettings, TrainSettings
from pipeline.training.setup import preset_config

ZERO_STAGES = (1, 2, 3)
"""Stages that `engine.zero_stage` can take."""


@dataclass(frozen=True)
class TypicalClip:
    """The length of every document, and the share of them that is speech.

    Attributes:
        duration_s: Seconds of audio.
        num_text: Tokens of the prefix.
        frame_rate: Latent frames per second, Hz.
        speech_share: Share of documents that pass through the expert.
    """

    duration_s: float
    num_text: int
    frame_rate: float
    speech_share: float

    def __post_init__(self) -> None:
        limits = {
            "duration_s": 0 < self.duration_s < math.inf,
            "num_text": self.num_text >= 1,
            "speech_share": 0 <= self.speech_share <= 1,
        }
        check_limits(self, limits, "give a share in [0, 1] or a positive number")


@dataclass(frozen=True)
class MemoryOption:
    """Memory of one GPU under one ZeRO stage.

    Attributes:
        zero_stage: ZeRO stage.
        recomputes_layers: Value of `engine.recompute_layers`.
        state_bytes: Weights, gradients, optimiser states and average.
        activation_bytes: Activations of one micro-batch, all of it speech.
        usable_bytes: Memory without the reserve.
        largest_micro_batch: Rows that fit beside the states; 0 fits none.
    """

    zero_stage: int
    recomputes_layers: bool
    state_bytes: float
    activation_bytes: float
    usable_bytes: float
    largest_micro_batch: int

    @property
    def total_bytes(self) -> float:
        """States and activations."""
        return self.state_bytes + self.activation_bytes

    @property
    def fits(self) -> bool:
        """Whether the micro-batch of the recipe fits."""
        return self.total_bytes <= self.usable_bytes


@dataclass(frozen=True)
class TypicalDocument:
    """The typical clip as a document of a packed row.

    Attributes:
        num_frames: Latent frames of its whole blocks.
        num_positions: Positions ("tokens") that it takes, noisy copies included.
        duration_s: Seconds of audio.
        is_cropped: Whether the clip is longer than a row has room for.
        flops: Floating-point operations of its forward and backward pass, the mean over speech
            and other clips.
    """

    num_frames: int
    num_positions: int
    duration_s: float
    is_cropped: bool
    flops: float


@dataclass(frozen=True)
class TrainPlan:
    """Estimates of a training run; a step is one optimiser step.

    Attributes:
        settings: The recipe.
        hardware: GPUs of the run.
        clip: The typical clip.
        utilisation: MFU of the run.
        sizes: Parameters by part, without adapters.
        num_trained: Parameters that are trained: all, or those of the adapters.
        document: The typical clip as the recipe packs it.
        options: Memory under every ZeRO stage, without and with recomputation.
    """

    settings: TrainSettings
    hardware: Hardware
    clip: TypicalClip
    utilisation: float
    sizes: Sizes
    num_trained: int
    document: TypicalDocument
    options: tuple[MemoryOption, ...]

    @property
    def chosen(self) -> MemoryOption:
        """The option that the recipe asks for."""
        engine = self.settings.engine
        wanted = (engine.zero_stage, engine.recompute_layers)
        return next(o for o in self.options if (o.zero_stage, o.recomputes_layers) == wanted)

    @property
    def suggested(self) -> MemoryOption | None:
        """The option that fits with the least communication and recomputation; None if none does.

        A higher stage costs communication, recomputation a third more operations.
        """
        fitting = [option for option in self.options if option.fits]
        return min(fitting, key=lambda o: (o.recomputes_layers, o.zero_stage), default=None)

    @property
    def documents_per_row(self) -> int:
        """Documents in one packed row."""
        return self.settings.feed.pack_length // self.document.num_positions

    @property
    def micro_batches(self) -> int:
        """Micro-batches of one worker in one step."""
        rows = -(-self.settings.feed.documents_per_step // self.documents_per_row)
        return -(-rows // self._rows_at_once)

    @property
    def positions_per_step(self) -> int:
        """Positions of one step, without padding."""
        return self.settings.feed.documents_per_step * self.document.num_positions

    @property
    def useful_share(self) -> float:
        """Share of the computed positions that belong to a document."""
        rows = self.micro_batches * self._rows_at_once
        return self.positions_per_step / (rows * self.settings.feed.pack_length)

    @property
    def audio_s_per_step(self) -> float:
        """Seconds of audio of one step."""
        return self.settings.feed.documents_per_step * self.document.duration_s

    @property
    def flops_per_step(self) -> float:
        """Useful floating-point operations of one step."""
        return self.settings.feed.documents_per_step * self.document.flops

    @property
    def step_s(self) -> float:
        """Seconds of one step."""
        peak = self.hardware.num_gpus * self.hardware.peak_flops
        return self.flops_per_step / (self.utilisation * peak)

    @property
    def num_steps(self) -> int:
        """Steps of the run."""
        return self.settings.optim.num_steps

    @property
    def duration_s(self) -> float:
        """Seconds of the run."""
        return self.num_steps * self.step_s

    @property
    def checkpoint_bytes(self) -> int:
        """Size of one checkpoint."""
        return checkpoint_bytes(self.num_trained)

    @property
    def checkpoint_copy_bytes(self) -> float:
        """Host memory of one worker while a checkpoint is written, for the copy of its state."""
        return checkpoint_copy_bytes(self.num_trained, self.hardware.num_gpus)

    @property
    def num_checkpoints(self) -> int:
        """Checkpoints that are on disk at once."""
        return self.settings.checkpoint.most_at_once(self.num_steps)

    @property
    def price(self) -> float | None:
        """Price of the run; None without a price per hour."""
        return self.hardware.price(self.duration_s)

    @property
    def _rows_at_once(self) -> int:
        """Rows of one micro-batch of all workers."""
        return self.settings.feed.rows_per_micro_batch * self.hardware.num_gpus


def planned_config(settings: ModelSettings, latent_dim: int) -> ModelConfig:
    """The model of a recipe without its shards: the preset with its overrides, or the parent's.

    Args:
        settings: The recipe's model.
        latent_dim: Width of the codec's latent frames.

    Raises:
        SettingsError: If an override is derived, unknown or out of range, or `init_from` is neither
            bundle nor run.
    """
    if settings.init_from is not None:
        return open_parent(settings.init_from).config
    return preset_config(settings, {"latent_dim": latent_dim})


def plan_training(
    settings: TrainSettings,
    config: ModelConfig,
    hardware: Hardware,
    clip: TypicalClip,
    utilisation: float,
) -> TrainPlan:
    """Estimate a run of a recipe.

    Args:
        settings: The recipe; `engine.num_workers` and `engine.use_gpu` are replaced by `hardware`.
        config: Configuration of its model.
        hardware: GPUs to run on.
        clip: Length of the documents.
        utilisation: MFU in (0, 1], as training logs it under `rate/mfu`: useful operations over
            the peak of all GPUs, without padding and recomputed layers.

    Raises:
        SettingsError: If the utilisation is no share, the recipe is not bf16, or a row has no room
            for one block of audio.
    """
    if not 0 < utilisation <= 1:
        raise SettingsError(f"MFU is {utilisation}; give a share in (0, 1]")
    if settings.engine.precision == "fp32":
        raise SettingsError(
            "engine.precision is fp32 and the memory and speed of a plan are those of bf16; set "
            "engine.precision to bf16 or auto"
        )
    count, document = sizes(config), _typical_document(config, settings.feed, clip)
    trained = num_trained(config, settings.model.lora)
    total = count.total + (0 if settings.model.lora is None else trained)
    states = {
        stage: training_bytes(total, stage, hardware.num_gpus, trained) for stage in ZERO_STAGES
    }
    options = tuple(_memory_options(settings.feed, config, hardware, document, states))
    return TrainPlan(settings, hardware, clip, utilisation, count, trained, document, options)


def _typical_document(
    config: ModelConfig, feed: FeedSettings, clip: TypicalClip
) -> TypicalDocument:
    wanted = num_blocks(max(1, round(clip.duration_s * clip.frame_rate)), config.frames_per_block)
    room = _blocks_of_row(config, feed, clip.num_text)
    num_frames = min(wanted, room) * config.frames_per_block
    other, speech = (
        document_counts(
            config, clip.num_text, num_frames, feed.num_noisy_copies, uses_expert=uses_expert
        )
        for uses_expert in (False, True)
    )
    return TypicalDocument(
        num_frames=num_frames,
        num_positions=other.positions,
        duration_s=min(clip.duration_s, num_frames / clip.frame_rate),
        is_cropped=wanted > room,
        flops=clip.speech_share * training_flops(config, speech)
        + (1 - clip.speech_share) * training_flops(config, other),
    )


def _blocks_of_row(config: ModelConfig, feed: FeedSettings, num_text: int) -> int:
    """Blocks of audio that a packed row has room for after a text.

    Raises:
        SettingsError: If there is room for none.
    """
    copies, frames = feed.num_noisy_copies, config.frames_per_block
    block_length = document_length(0, frames, copies, config.head.kind)
    room = (feed.pack_length - num_text) // block_length
    if room < 1:
        raise SettingsError(
            f"feed.pack_length {feed.pack_length} leaves no room for a block of {block_length} "
            f"positions after {num_text} tokens of text; give a longer row or less text"
        )
    return room


def _memory_options(
    feed: FeedSettings,
    config: ModelConfig,
    hardware: Hardware,
    document: TypicalDocument,
    states: Mapping[int, float],
) -> Iterator[MemoryOption]:
    """Memory of one GPU whose rows are full and all of them speech.

    Args:
        states: Bytes of weights, gradients and optimiser states by ZeRO stage.
    """
    documents_per_row = feed.pack_length // document.num_positions
    row = Counts(
        positions=feed.pack_length,
        expert_positions=feed.pack_length if config.expert.placement != "none" else 0,
        noisy_frames=documents_per_row * document.num_frames * feed.num_noisy_copies,
    )
    for recomputes_layers in (False, True):
        row_bytes = activation_bytes(config, row, recomputes_layers=recomputes_layers)
        for zero_stage, state_bytes in states.items():
            yield MemoryOption(
                zero_stage=zero_stage,
                recomputes_layers=recomputes_layers,
                state_bytes=state_bytes,
                activation_bytes=feed.rows_per_micro_batch * row_bytes,
                usable_bytes=hardware.usable_bytes,
                largest_micro_batch=max(0, int((hardware.usable_bytes - state_bytes) // row_bytes)),
            )
