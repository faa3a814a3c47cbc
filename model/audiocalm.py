"""AudioCALM: text, voice and latents through one transformer, velocity and stop out of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from model.attention import Mask, PackedAttention, arflow_block_mask, arflow_mask
from model.backbone import Backbone, RMSNorm
from model.batch import TrainingBatch
from model.config import ModelConfig
from model.experts import INIT_STD, inference_route, training_route
from model.flow_head import ThinFlowHead, TimeEmbedding
from model.sequence import CLEAN, PREFIX

_MIN_STD = 1e-3
"""Floor of a latent channel's standard deviation, so that a dead channel is not blown up."""


@dataclass(frozen=True)
class ModelOutput:
    """What the packed forward pass predicts at every position, float32.

    Attributes:
        velocity: Meaningful on noisy positions.
        stop_logit: Meaningful on clean positions.
    """

    velocity: Float[Tensor, "batch seq latent_dim"]
    stop_logit: Float[Tensor, "batch seq"]


class StopHead(nn.Module):
    """Logit of `end_of_audio` at every clean frame."""

    def __init__(self, hidden_dim: int) -> None:
        super().__init__()
        self.input_proj = nn.Linear(hidden_dim, hidden_dim)
        self.output_proj = nn.Linear(hidden_dim, 1)

    def forward(self, hidden: Float[Tensor, "*batch hidden"]) -> Float[Tensor, "*batch"]:
        """Logit in float32."""
        return self.output_proj(F.silu(self.input_proj(hidden))).squeeze(-1).float()


class SpeakerProjection(nn.Module):
    """Voice embedding as one prefix token."""

    def __init__(self, speaker_dim: int, hidden_dim: int, eps: float) -> None:
        super().__init__()
        self.proj = nn.Linear(speaker_dim, hidden_dim)
        self.norm = RMSNorm(hidden_dim, eps)
        # A voice starts as large as a fresh text embedding.
        nn.init.constant_(self.norm.weight, INIT_STD)

    def forward(self, speaker: Float[Tensor, "*batch speaker_dim"]) -> Tensor:
        """Token embedding of every voice."""
        return self.norm(self.proj(speaker.to(self.proj.weight.dtype)))


class AudioCALM(nn.Module):
    """The model. Buffers `latent_mean` and `latent_std` describe raw codec latents and stay
    float32 when the module is cast.

    Raises:
        ValueError: For the head kind `local`, which is not built yet.
    """

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        if config.head.kind != "thin":
            raise ValueError(f"head kind {config.head.kind!r} is not available; use thin")
        self.config = config
        hidden_dim = config.backbone.hidden_dim
        self.backbone = Backbone(config.backbone, config.expert)
        self.latent_proj = nn.Linear(config.latent_dim, hidden_dim)
        self.clean_type = nn.Parameter(torch.zeros(hidden_dim))
        self.noisy_type = nn.Parameter(torch.zeros(hidden_dim))
        self.time_embedding = TimeEmbedding(config.head.time_embedding_dim, hidden_dim)
        self.speaker_proj = (
            None
            if config.speaker_id is None
            else SpeakerProjection(config.speaker_dim, hidden_dim, config.backbone.norm_eps)
        )
        self.flow_head = ThinFlowHead(hidden_dim, config.latent_dim, config.head)
        self.stop_head = StopHead(hidden_dim)
        self.register_buffer("latent_mean", torch.zeros(config.latent_dim))
        self.register_buffer("latent_std", torch.ones(config.latent_dim))
        for parameter in (self.clean_type, self.noisy_type):
            nn.init.normal_(parameter, std=INIT_STD)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> AudioCALM:
        """Cast and move the module; the latent statistics move and keep float32."""
        exact = (self.latent_mean, self.latent_std)
        super()._apply(fn, recurse)
        if not self.latent_mean.is_meta:
            self.latent_mean, self.latent_std = (
                value.to(self.latent_mean.device) for value in exact
            )
        return self

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights."""
        return self.latent_proj.weight.dtype

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.latent_proj.weight.device

    def set_latent_stats(
        self, mean: Float[Tensor, " latent_dim"], std: Float[Tensor, " latent_dim"]
    ) -> None:
        """Statistics of raw codec latents, per channel."""
        self.latent_mean.copy_(mean)
        self.latent_std.copy_(std)

    def normalise(
        self, latents: Float[Tensor, "*batch latent_dim"]
    ) -> Float[Tensor, "*batch latent_dim"]:
        """Raw codec latents to zero mean and unit variance per channel."""
        return (latents.float() - self.latent_mean) / self.latent_std.clamp_min(_MIN_STD)

    def denormalise(
        self, latents: Float[Tensor, "*batch latent_dim"]
    ) -> Float[Tensor, "*batch latent_dim"]:
        """Inverse of `normalise`."""
        return latents.float() * self.latent_std.clamp_min(_MIN_STD) + self.latent_mean

    def embed_prefix(
        self,
        token_ids: Int[Tensor, "batch seq"],
        speaker: Float[Tensor, "batch #seq speaker_dim"] | None,
    ) -> Float[Tensor, "batch seq hidden"]:
        """Token embeddings; the voice takes the places of the speaker token."""
        embeddings = self.backbone.embed_tokens(token_ids)
        if self.speaker_proj is None or speaker is None:
            return embeddings
        is_speaker = token_ids.eq(self.config.speaker_id or 0).unsqueeze(-1)
        return torch.where(is_speaker, self.speaker_proj(speaker), embeddings)

    def embed_clean(
        self, latents: Float[Tensor, "*batch latent_dim"]
    ) -> Float[Tensor, "*batch hidden"]:
        """Embedding of finished latents; flow time never enters."""
        return self.latent_proj(latents.to(self.dtype)) + self.clean_type

    def embed_noisy(
        self,
        noisy_latents: Float[Tensor, "*batch latent_dim"],
        flow_time: Float[Tensor, "*#batch"],
    ) -> Float[Tensor, "*batch hidden"]:
        """Embedding of latents on their way, with their flow time."""
        embedded = self.latent_proj(noisy_latents.to(self.dtype))
        return embedded + self.noisy_type + self.time_embedding(flow_time)

    def _embed(self, batch: TrainingBatch) -> Float[Tensor, "batch seq hidden"]:
        row = torch.arange(batch.document.shape[0], device=batch.document.device)[:, None]
        speaker = None
        if self.speaker_proj is not None:
            speaker = batch.speaker[row, batch.document.clamp_min(0)]
        prefix = self.embed_prefix(batch.token_ids, speaker)
        clean = self.embed_clean(batch.latent_inputs)
        noisy = self.embed_noisy(batch.latent_inputs, batch.flow_time)
        segment = batch.segment.unsqueeze(-1)
        return torch.where(segment == PREFIX, prefix, torch.where(segment == CLEAN, clean, noisy))

    def _mask(self, batch: TrainingBatch) -> Mask:
        build = arflow_block_mask if batch.document.is_cuda else arflow_mask
        return build(
            batch.document, batch.segment, batch.block, batch.copy, self.config.window_blocks
        )

    def hidden_states(self, batch: TrainingBatch) -> Float[Tensor, "batch seq hidden"]:
        """Normalised hidden states of a packed batch."""
        route = training_route if self.training else inference_route
        return self.backbone(
            self._embed(batch),
            batch.position,
            PackedAttention(self._mask(batch)),
            route(batch.expert_mask) if self.config.expert.placement != "none" else None,
        )

    def forward(self, batch: TrainingBatch) -> ModelOutput:
        """Velocity and stop logit at every position of a packed batch.

        The stop head reads detached states: it never bends the backbone.
        """
        hidden = self.hidden_states(batch)
        return ModelOutput(
            velocity=self.flow_head(hidden, batch.flow_time),
            stop_logit=self.stop_head(hidden.detach()),
        )
