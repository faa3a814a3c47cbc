"""Frozen configurations of the model, and the presets from a laptop to 8B.

What the paper leaves open is chosen here; README, "Deviations and choices", gives the reasons.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

MODALITIES = ("speech", "sound", "music")
"""The modality labels, in the order of their integer ids."""

MAX_GUIDANCE_SCALE = 100.0
"""Largest guidance that the sampler takes; beyond it the flow overshoots any data."""


def require_positive(config: Any, *names: str) -> None:
    """Raise `ValueError` unless the named numbers of a dataclass, by default all, are positive."""
    for name in names or [item.name for item in dataclasses.fields(config)]:
        value = getattr(config, name)
        if isinstance(value, int | float) and value <= 0:
            raise ValueError(f"{name} is {value}; it must be positive")


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """A decoder-only transformer in the Qwen3 layout."""

    hidden_dim: int
    """Width of the residual stream."""
    num_layers: int
    """Decoder layers."""
    num_heads: int
    """Query heads."""
    num_kv_heads: int
    """Key and value heads (grouped-query attention); divides `num_heads`."""
    head_dim: int
    """Width of one head; explicit in Qwen3, not hidden_dim / num_heads."""
    ffn_dim: int
    """Inner width of the SwiGLU feed-forward."""
    vocab_size: int
    """Rows of the token embedding, special tokens included."""
    rope_theta: float = 1e6
    """Base of the rotary position embedding; 1e6 as in Qwen3."""
    norm_eps: float = 1e-6
    """Epsilon of every RMSNorm; 1e-6 as in Qwen3."""

    def __post_init__(self) -> None:
        require_positive(self)
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_kv_heads {self.num_kv_heads} does not divide num_heads {self.num_heads}"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim {self.head_dim} is odd; rotary embedding needs it even")


@dataclass(frozen=True, kw_only=True)
class ExpertConfig:
    """The residual expert of A-MoME."""

    placement: Literal["ffn", "none"] = "ffn"
    """Where the residual sits in every layer; `none` builds a model without expert."""
    ffn_ratio: float = 0.25
    """Inner width of the expert as a share of the backbone's ffn_dim, in (0, 4]; a choice."""
    labels: tuple[str, ...] = ("speech", "singing")
    """Document labels that route to the expert."""

    def __post_init__(self) -> None:
        if self.placement not in ("ffn", "none"):
            raise ValueError(f"placement is {self.placement!r}; use ffn or none")
        if not 0 < self.ffn_ratio <= 4:
            raise ValueError(f"ffn_ratio {self.ffn_ratio} is outside (0, 4]")

    def width(self, ffn_dim: int) -> int:
        """Inner width of the expert beside a feed-forward of `ffn_dim`."""
        return max(1, round(self.ffn_ratio * ffn_dim))

    def routes(self, modality: str, *, is_singing: bool = False) -> bool:
        """Whether documents of a modality use the expert; singing has a label of its own."""
        label = "singing" if is_singing else modality
        return self.placement != "none" and label in self.labels


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """The flow head."""

    kind: Literal["thin", "local"] = "thin"
    """`thin`: the backbone sees the noisy block and the head only maps; `local`: the backbone runs
    once a block, over blank frames, and a small transformer denoises."""
    hidden_dim: int = 1024
    """Width of the head; 1024 is the default of MAR, arXiv:2406.11838."""
    num_layers: int = 3
    """Residual layers of the thin head, transformer layers of the local one; 3 as in MAR."""
    head_dim: int = 64
    """Width of an attention head of the local head; divides `hidden_dim`."""
    time_embedding_dim: int = 256
    """Sinusoids of the flow time."""

    def __post_init__(self) -> None:
        if self.kind not in ("thin", "local"):
            raise ValueError(f"head kind {self.kind!r}; use thin or local")
        require_positive(self)
        if self.kind == "local" and (self.hidden_dim % self.head_dim or self.head_dim % 2):
            raise ValueError(
                f"head_dim {self.head_dim} of the local head must be even and divide its "
                f"hidden_dim {self.hidden_dim}"
            )


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Everything that fixes the shapes of an AudioCALM model."""

    backbone: BackboneConfig
    """The transformer."""
    expert: ExpertConfig = field(default_factory=ExpertConfig)
    """A-MoME."""
    head: HeadConfig = field(default_factory=HeadConfig)
    """The flow head."""
    latent_dim: int = 128
    """Width of one latent frame; with 10.77 frames a second the rate of Stable Audio Open,
    arXiv:2407.14358."""
    frames_per_block: int = 8
    """Latent frames generated together; a choice, 0.74 s at 10.77 frames a second."""
    paces_speech: bool = False
    """Whether audio with a transcript takes rotary positions along its words, with durations that
    are predicted from the prefix. Training aligns them (`pipeline.training.alignment`)."""
    paces_music: bool = False
    """Whether audio whose description names beats per minute takes rotary positions in beats: one
    beat is the same number of positions at every tempo (`model.tempo`)."""
    speaker_dim: int = 192
    """Width of a speaker embedding; 192 is that of ECAPA-TDNN, arXiv:2005.07143."""
    speaker_id: int | None = None
    """Token whose embedding the voice overwrites, the tokenizer's `speaker_id`; None builds a
    model without voices."""

    def __post_init__(self) -> None:
        if self.speaker_id is not None and not 0 <= self.speaker_id < self.backbone.vocab_size:
            raise ValueError(
                f"speaker_id {self.speaker_id} is outside the vocabulary of "
                f"{self.backbone.vocab_size} tokens"
            )
        require_positive(self, "latent_dim", "frames_per_block", "speaker_dim")


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration as plain JSON values."""
    return dataclasses.asdict(config)


def model_config_from_dict(values: dict[str, Any]) -> ModelConfig:
    """Inverse of `to_dict`.

    Raises:
        ValueError: On an unknown or missing key, or a value out of range.
    """
    nested = {"backbone": BackboneConfig, "expert": ExpertConfig, "head": HeadConfig}
    try:
        expert = dict(values.get("expert", {}))
        # Configurations of earlier versions hold options that are no more.
        expert.pop("attention_rank", None)
        if values.get("window_blocks", 0) is None:
            values = {name: value for name, value in values.items() if name != "window_blocks"}
        if "labels" in expert:
            expert["labels"] = tuple(expert["labels"])
        parts = {
            name: cls(**(expert if name == "expert" else values[name]))
            for name, cls in nested.items()
            if name in values
        }
        return ModelConfig(**{**values, **parts})
    except TypeError as error:
        raise ValueError(f"not a model configuration: {error}") from error


def _qwen3(hidden_dim: int, num_layers: int, num_heads: int, ffn_dim: int) -> ModelConfig:
    """A model over a published Qwen3; it has 8 key heads of width 128 at every size."""
    backbone = BackboneConfig(
        hidden_dim=hidden_dim,
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=8,
        head_dim=128,
        ffn_dim=ffn_dim,
        vocab_size=151_936,
    )
    # Second of the ids that the published tokenizer leaves free (`model.text`).
    return ModelConfig(backbone=backbone, speaker_id=151_670)


PRESETS: dict[str, ModelConfig] = {
    "tiny": ModelConfig(
        backbone=BackboneConfig(
            hidden_dim=256,
            num_layers=6,
            num_heads=4,
            num_kv_heads=2,
            head_dim=64,
            ffn_dim=768,
            vocab_size=512,
        ),
        head=HeadConfig(hidden_dim=256, num_layers=2),
        latent_dim=64,
        speaker_id=257,
    ),
    "0.6b": _qwen3(1024, 28, 16, 3072),
    "1.7b": _qwen3(2048, 28, 16, 6144),
    "4b": _qwen3(2560, 36, 32, 9728),
    "8b": _qwen3(4096, 36, 32, 12_288),
}
"""Shapes of the published Qwen3 dense models (0.6B to 8B), and a laptop-sized one on bytes."""


def preset(name: str) -> ModelConfig:
    """The named preset.

    Raises:
        ValueError: If there is none of that name.
    """
    if name not in PRESETS:
        raise ValueError(f"no model preset {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]
