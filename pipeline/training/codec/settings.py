"""Settings of codec training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from model.codec.registry import codec_preset
from model.codec.vae.adversarial import AdversarialConfig
from model.codec.vae.codec_config import codec_config_from_dict
from model.codec.vae.discriminator import DiscriminatorConfig, discriminator_config
from model.codec.vae.losses import CodecLossConfig
from model.optim import OptimConfig
from pipeline.settings import Settings
from pipeline.tracking import TrackingSettings
from pipeline.training.settings import (
    ADJUSTABLE_OPTIM,
    RunSettings,
    SaveSettings,
    WorkerSettings,
)


@dataclass(frozen=True, kw_only=True)
class CodecOptimConfig(OptimConfig):
    """`OptimConfig` with the defaults of codec training."""

    num_steps: int = 1000
    learning_rate: float = 5e-4
    warmup_steps: int = 50
    decay_share: float = 1.0
    final_share: float = 0.05
    decay: Any = "cosine"
    betas: tuple[float, float] = (0.8, 0.99)
    weight_decay: float = 0.01
    ema_decay: float = 0.995


class CropSettings(Settings):
    """Crops of a training step."""

    duration_s: float = Field(default=0.96, gt=0, le=60)
    """Length of a crop, seconds; rounded to whole latent frames."""
    per_step: int = Field(default=16, gt=0)
    """Crops of one optimiser step, over all workers together."""
    modality_weights: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(
        default_factory=dict
    )
    """Relative share of each modality in the crops; 1 for modalities that are not named. Modalities
    without clips are ignored."""
    skip_steps: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """Steps that are skipped without an update, numbered from 0 as in the error about a loss that
    is not finite. May be set on resume."""
    memory_limit_bytes: int = Field(default=512 * 2**20, ge=0)
    """A corpus below this size as 16-bit samples at the codec's rate is decoded once and kept, in
    each worker; a larger one is decoded crop by crop."""


class CodecSaveSettings(SaveSettings):
    """`SaveSettings` with the interval of codec training, whose checkpoints are small."""

    every: int = Field(default=200, gt=0)
    """Steps between checkpoints; the last step always has one."""


class TrainCodecSettings(RunSettings):
    """The recipe of `train-codec`."""

    free = (
        "resources",
        "tracking",
        "checkpoint",
        "log_every",
        "validation_crops",
        "reconstructions",
        "reconstruction_s",
    )
    adjustable = (*ADJUSTABLE_OPTIM, "crops.skip_steps")

    preset: str = "tiny"
    """Codec preset: tiny, small or paper."""
    codec: dict[str, Any] = Field(default_factory=dict)
    """Fields of the codec configuration that differ from the preset."""
    loss: CodecLossConfig = Field(default_factory=CodecLossConfig)
    """Terms of the loss."""
    adversarial: AdversarialConfig = Field(default_factory=AdversarialConfig)
    """Start and weights of the discriminators; they are off by default."""
    discriminator: dict[str, Any] = Field(default_factory=dict)
    """Fields of the discriminators' configuration that differ from the preset's."""
    init_from: str | None = None
    """Codec whose weights the run starts from: a folder, or the name of a shipped codec. It must
    have the configuration of this recipe."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Type of the layers; spectra, losses, weights and their averages always stay float32."""
    latent_noise: float = Field(default=0.05, ge=0, le=1)
    """Standard deviation of the noise added to latents in training, relative to theirs."""
    optim: CodecOptimConfig = Field(default_factory=CodecOptimConfig)
    """Optimiser, schedule and weight average."""
    crops: CropSettings = Field(default_factory=CropSettings)
    """Crops of a step."""
    resources: WorkerSettings = Field(default_factory=WorkerSettings)
    """Workers; they divide the crops of a step."""
    tracking: TrackingSettings = Field(default_factory=TrackingSettings)
    """MLflow."""
    seed: int = Field(default=0, ge=0)
    """Seed of the initial weights, the crops and the noise."""
    checkpoint: CodecSaveSettings = Field(default_factory=CodecSaveSettings)
    """When checkpoints are written, and how many are kept."""
    log_every: int = Field(default=20, gt=0)
    """Steps between logged losses, which are means over the steps since the last log."""
    validation_crops: int = Field(default=32, ge=1)
    """Number of validation crops that the finished codec is measured on."""
    reconstructions: int = Field(default=6, ge=0)
    """Number of validation crops that are written as audio and spectrograms."""
    reconstruction_s: float = Field(default=4.0, gt=0, le=60)
    """Longest reconstruction that is written, seconds."""

    @model_validator(mode="after")
    def _consistent(self) -> TrainCodecSettings:
        if self.crops.per_step % self.resources.num_workers:
            raise ValueError(
                f"crops.per_step {self.crops.per_step} does not divide into "
                f"{self.resources.num_workers} workers; change either"
            )
        self.codec_config()
        self.discriminator_config()
        return self

    def discriminator_config(self) -> DiscriminatorConfig:
        """Configuration of the discriminators: the preset with its changes.

        Raises:
            ValueError: On an unknown field or a value out of range.
        """
        return discriminator_config(self.preset, self.discriminator)

    def codec_config(self) -> dict[str, Any]:
        """Configuration of the codec: the preset with its changes.

        Raises:
            ValueError: On an unknown preset or field.
        """
        config = codec_preset(self.preset) | self.codec
        codec_config_from_dict({name: value for name, value in config.items() if name != "name"})
        return config
