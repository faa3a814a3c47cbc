"""Estimate of the memory, steps, time, disk space and cost of a training run before it starts.

Everything is arithmetic over the recipe and over what the caller states: documents of one typical
length, the utilisation that the run will reach, and the hardware.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from model.config import ModelConfig
from model.cost import Counts, Sizes, document_counts, sizes, training_flops
from model.sequence import document_length
from model.timebase import num_blocks
from pipeline.errors import SettingsError
from pipeline.training.hardware import (
    activation_bytes,
    checkpoint_bytes,
    gpu_names,
    memory_bytes,
    peak_flops,
    training_bytes,
)
from pipeline.training.init_from import open_parent
from pipeline.training.settings import ModelSettings, TrainSettings
from pipeline.training.setup import preset_config

ZERO_STAGES = (1, 2, 3)
"""Stages that `engine.zero_stage` can take."""


@dataclass(frozen=True)
class Hardware:
    """GPUs of one kind.

    Attributes:
        num_gpus: GPUs of the run; each runs one worker.
        memory_bytes: Memory of one GPU.
        peak_flops: Dense bf16 operations per second of one GPU.
        gpus_per_node: GPUs of one machine.
        reserved_share: Share of the memory left free for the CUDA context, communication buffers
            and fragmentation.
        price_per_hour: Price of one GPU for one hour, in any currency; None prices nothing.
    """

    num_gpus: int
    memory_bytes: float
    peak_flops: float
    gpus_per_node: int = 8
    reserved_share: float = 0.1
    price_per_hour: float | None = None

    @staticmethod
    def of(
        name: str | None,
        *,
        memory_gb: float | None = None,
        peak_tflops: float | None = None,
        **values: Any,
    ) -> Hardware:
        """GPUs by their name, with memory and peak as given or else as the vendor states them.

        Args:
            name: Contains the model of the GPU, such as H100, in any case; None needs the others.
            memory_gb: Memory of one GPU, 10^9 bytes.
            peak_tflops: Dense bf16 peak of one GPU, 10^12 operations per second.
            values: The other fields.

        Raises:
            SettingsError: If memory or peak is neither given nor known for the name, or a value is
                out of range.
        """
        known = (name or "").upper()
        memory = memory_bytes(known) if memory_gb is None else memory_gb * 1e9
        peak = peak_flops(known) if peak_tflops is None else peak_tflops * 1e12
        if memory is None or peak is None:
            raise SettingsError(
                f"memory or peak of GPU {name!r} is not known; known are {', '.join(gpu_names())}: "
                "give one of these as --gpu, or both --gpu-memory and --gpu-tflops"
            )
        return Hardware(memory_bytes=memory, peak_flops=peak, **values)

    def __post_init__(self) -> None:
        limits = {
            "num_gpus": self.num_gpus >= 1,
            "gpus_per_node": self.gpus_per_node >= 1,
            "memory_bytes": self.memory_bytes > 0,
            "peak_flops": self.peak_flops > 0,
            "reserved_share": 0 <= self.reserved_share < 1,
            "price_per_hour": self.price_per_hour is None or self.price_per_hour >= 0,
        }
        _check(self, limits, "give a share in [0, 1) or a positive number")

    @property
    def num_nodes(self) -> int:
        """Machines that hold the GPUs."""
        return -(-self.num_gpus // self.gpus_per_node)

    @property
    def usable_bytes(self) -> float:
        """Memory of one GPU without the reserve."""
        return self.memory_bytes * (1 - self.reserved_share)

    def price(self, seconds: float) -> float | None:
        """Price of all GPUs for a time."""
        if self.price_per_hour is None:
            return None
        return self.num_gpus * seconds / 3600 * self.price_per_hour


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
        _check(self, limits, "give a share in [0, 1] or a positive number")


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
class TrainPlan:
    """Estimates of a training run.

    Attributes:
        sizes: Parameters by part.
        options: Memory under every ZeRO stage, without and with recomputation.
        chosen: The option that the recipe asks for.
        documents_per_row: Documents in one packed row.
        positions_per_document: Positions of one document, noisy copies included.
        is_cropped: Whether the typical clip does not fit a row whole.
        seconds_per_document: Seconds of audio in one document.
        micro_batches: Micro-batches of one worker in one step.
        positions_per_step: Positions ("tokens") of one optimiser step, padding left out.
        useful_share: Share of the computed positions that belong to a document.
        audio_s_per_step: Seconds of audio of one step.
        work_per_step: Useful floating-point operations of one step.
        step_s: Seconds of one step.
        num_steps: Steps of the run.
        checkpoint_bytes: Size of one checkpoint.
        num_checkpoints: Checkpoints that are on disk at once.
        price: Price of the run; None without a price per hour.
    """

    sizes: Sizes
    options: tuple[MemoryOption, ...]
    chosen: MemoryOption
    documents_per_row: int
    positions_per_document: int
    is_cropped: bool
    seconds_per_document: float
    micro_batches: int
    positions_per_step: int
    useful_share: float
    audio_s_per_step: float
    work_per_step: float
    step_s: float
    num_steps: int
    checkpoint_bytes: int
    num_checkpoints: int
    price: float | None

    @property
    def suggested(self) -> MemoryOption | None:
        """The option that fits with the least communication and recomputation; None if none does.

        A higher stage costs communication, recomputation a third more operations.
        """
        fitting = [option for option in self.options if option.fits]
        return min(fitting, key=lambda o: (o.recomputes_layers, o.zero_stage), default=None)


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
    feed, counted = settings.feed, sizes(config)
    blocks, is_cropped = _blocks(config, settings, clip)
    num_frames = blocks * config.frames_per_block
    documents = {
        uses_expert: document_counts(
            config, clip.num_text, num_frames, feed.num_noisy_copies, uses_expert=uses_expert
        )
        for uses_expert in (False, True)
    }
    length = documents[False].positions
    per_row = feed.pack_length // length
    rows = -(-feed.documents_per_step // per_row)
    micro_batches = -(-rows // (feed.rows_per_micro_batch * hardware.num_gpus))
    computed_rows = micro_batches * feed.rows_per_micro_batch * hardware.num_gpus
    num_speech = round(feed.documents_per_step * clip.speech_share)
    work = num_speech * training_flops(config, documents[True]) + (
        feed.documents_per_step - num_speech
    ) * training_flops(config, documents[False])
    positions = feed.documents_per_step * length
    step_s = work / (utilisation * hardware.num_gpus * hardware.peak_flops)
    options = tuple(
        _memory(config, counted.total, settings, hardware, per_row * num_frames, stage, recomputes)
        for recomputes in (False, True)
        for stage in ZERO_STAGES
    )
    wanted = (settings.engine.zero_stage, settings.engine.recompute_layers)
    duration_s = min(clip.duration_s, num_frames / clip.frame_rate)
    num_steps = settings.optim.num_steps
    return TrainPlan(
        sizes=counted,
        options=options,
        chosen=next(o for o in options if (o.zero_stage, o.recomputes_layers) == wanted),
        documents_per_row=per_row,
        positions_per_document=length,
        is_cropped=is_cropped,
        seconds_per_document=duration_s,
        micro_batches=micro_batches,
        positions_per_step=positions,
        useful_share=positions / (computed_rows * feed.pack_length),
        audio_s_per_step=feed.documents_per_step * duration_s,
        work_per_step=work,
        step_s=step_s,
        num_steps=num_steps,
        checkpoint_bytes=checkpoint_bytes(counted.total),
        num_checkpoints=settings.checkpoint.most_at_once(num_steps),
        price=hardware.price(num_steps * step_s),
    )


def _check(config: Any, limits: Mapping[str, bool], remedy: str) -> None:
    for name, is_met in limits.items():
        if not is_met:
            raise SettingsError(f"{name} is {getattr(config, name)}; {remedy}")


def _blocks(config: ModelConfig, settings: TrainSettings, clip: TypicalClip) -> tuple[int, bool]:
    """Blocks of the typical document, and whether the row crops it."""
    feed = settings.feed
    block_length = document_length(
        0, config.frames_per_block, feed.num_noisy_copies, config.head.kind
    )
    total = num_blocks(max(1, round(clip.duration_s * clip.frame_rate)), config.frames_per_block)
    room = (feed.pack_length - clip.num_text) // block_length
    if room < 1:
        raise SettingsError(
            f"feed.pack_length {feed.pack_length} leaves no room for a block of {block_length} "
            f"positions after {clip.num_text} tokens of text; give a longer row or less text"
        )
    return min(total, room), total > room


def _memory(
    config: ModelConfig,
    num_parameters: int,
    settings: TrainSettings,
    hardware: Hardware,
    noisy_frames: int,
    zero_stage: int,
    recomputes_layers: bool,
) -> MemoryOption:
    feed = settings.feed
    states = training_bytes(num_parameters, zero_stage, hardware.num_gpus)

    def kept(rows: int) -> int:
        """Activations of full rows of speech."""
        positions = rows * feed.pack_length
        has_expert = config.expert.placement != "none"
        counts = Counts(
            positions=positions,
            expert_positions=positions if has_expert else 0,
            noisy_frames=rows * noisy_frames * feed.num_noisy_copies,
        )
        return activation_bytes(config, counts, recomputes_layers=recomputes_layers)

    return MemoryOption(
        zero_stage=zero_stage,
        recomputes_layers=recomputes_layers,
        state_bytes=states,
        activation_bytes=kept(feed.rows_per_micro_batch),
        usable_bytes=hardware.usable_bytes,
        largest_micro_batch=max(0, int((hardware.usable_bytes - states) // kept(1))),
    )
