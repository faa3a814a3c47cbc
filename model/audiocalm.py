"""AudioCALM: text, voice and latents through one transformer, velocity and stop out of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from model.attention import Attend, PackedAttention, arflow_block_mask
from model.backbone import Backbone
from model.batch import TrainingBatch
from model.config import ModelConfig
from model.document_attention import DocumentAttention
from model.experts import route_tokens
from model.heads import LocalFlowHead, ScalarHead, ThinFlowHead, TimeEmbedding
from model.layers import INIT_STD, RMSNorm
from model.sequence import CLEAN, NOISY, PREFIX
from model.words import WordContext, centre_of

_MIN_STD = 1e-3
"""Floor of a latent channel's standard deviation, so that a dead channel is not blown up."""


@dataclass(frozen=True)
class ModelOutput:
    """Predictions of the packed forward pass at every position, float32.

    Attributes:
        velocity: Velocity at noisy positions, 0 elsewhere.
        stop_logit: Meaningful on clean positions.
        log_duration: Logarithm of the expected frames of a transcript token, meaningful at these;
            None under a model that does not pace speech.
    """

    velocity: Float[Tensor, "batch seq latent_dim"]
    stop_logit: Float[Tensor, "batch seq"]
    log_duration: Float[Tensor, "batch seq"] | None = None


class SpeakerProjection(nn.Module):
    """Projection of a voice embedding to one prefix token."""

    def __init__(self, speaker_dim: int, hidden_dim: int, eps: float) -> None:
        super().__init__()
        self.proj = nn.Linear(speaker_dim, hidden_dim)
        # A voice starts as large as a fresh text embedding.
        self.norm = RMSNorm(hidden_dim, eps, gain=INIT_STD)

    def forward(self, speaker: Float[Tensor, "*batch speaker_dim"]) -> Tensor:
        """Token embedding of every voice."""
        return self.norm(self.proj(speaker.to(self.proj.weight.dtype)))


class AudioCALM(nn.Module):
    """The model. Buffers `latent_mean` and `latent_std` describe raw codec latents and stay
    float32 when the module is cast.

    Built under `model.layers.shapes_only`, it gets its values from `model.layers.materialise` or
    from a checkpoint.
    """

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        hidden_dim = config.backbone.hidden_dim
        is_local = config.head.kind == "local"
        self.backbone = Backbone(config.backbone, config.expert)
        self.latent_proj = nn.Linear(config.latent_dim, hidden_dim)
        self.time_embedding = (
            None if is_local else TimeEmbedding(config.head.time_embedding_dim, hidden_dim)
        )
        self.speaker_proj = (
            None
            if config.speaker_id is None
            else SpeakerProjection(config.speaker_dim, hidden_dim, config.backbone.norm_eps)
        )
        head = LocalFlowHead if is_local else ThinFlowHead
        self.flow_head: LocalFlowHead | ThinFlowHead = head(
            hidden_dim, config.latent_dim, config.head
        )
        self.stop_head = ScalarHead(hidden_dim)
        self.duration_head = ScalarHead(hidden_dim) if config.paces_speech else None
        self.word_context = (
            WordContext(hidden_dim, config.backbone.norm_eps) if config.paces_speech else None
        )
        self.clean_type = nn.Parameter(torch.empty(hidden_dim))
        self.noisy_type = nn.Parameter(torch.empty(hidden_dim))
        self.register_buffer("latent_mean", torch.empty(config.latent_dim))
        self.register_buffer("latent_std", torch.empty(config.latent_dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initial values of the parameters that no submodule owns."""
        for parameter in (self.clean_type, self.noisy_type):
            nn.init.normal_(parameter, std=INIT_STD)
        nn.init.zeros_(self.latent_mean)
        nn.init.ones_(self.latent_std)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> AudioCALM:
        """Cast and move the module; the latent statistics move and keep float32."""
        exact = (self.latent_mean, self.latent_std)
        super()._apply(fn, recurse)
        if self.latent_mean.is_meta or not exact[0].is_meta:
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

    def compile_layers(self) -> None:
        """Compile every layer and the head where they are; the same result up to rounding.

        On a CPU this needs a C++ compiler.
        """
        for layer in self.backbone.layers:
            layer.compile()
        self.flow_head.compile()
        # Compiled layers call the attention of a CPU as it is: it loops over groups of documents.
        torch.compiler.disable(DocumentAttention)

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
        speaker: Float[Tensor, "batch documents speaker_dim"] | None,
        document: Int[Tensor, "batch seq"] | None = None,
    ) -> Float[Tensor, "batch seq hidden"]:
        """Token embeddings; the voice takes the places of the speaker token.

        Args:
            token_ids: Prefix tokens; ids at other positions are ignored by callers.
            speaker: Voice of every document.
            document: Document of each position, which selects its voice; None selects the first.
        """
        embeddings = self.backbone.embed_tokens(token_ids)
        if self.speaker_proj is None or speaker is None:
            return embeddings
        voice = self.speaker_proj(speaker)
        if document is None:
            voice = voice[:, :1]
        else:
            row = torch.arange(len(voice), device=voice.device)[:, None]
            voice = voice[row, document.clamp_min(0)]
        is_speaker = token_ids.eq(self.config.speaker_id or 0).unsqueeze(-1)
        return torch.where(is_speaker, voice, embeddings)

    def embed_clean(
        self, latents: Float[Tensor, "*batch latent_dim"]
    ) -> Float[Tensor, "*batch hidden"]:
        """Embedding of finished latents; flow time never enters."""
        return self.latent_proj(latents.to(self.dtype)) + self.clean_type

    def embed_time(self, flow_time: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch hidden"]:
        """Embedding of noisy frames and their flow time, added to the projected latents; the local
        head has none."""
        assert self.time_embedding is not None
        return self.time_embedding(flow_time) + self.noisy_type

    def embed_blank(self, num_rows: int) -> Float[Tensor, "rows block_frames hidden"]:
        """Embedding of a block without latents, which the local head predicts from."""
        blank = self.latent_proj.bias + self.noisy_type
        return blank.repeat(num_rows, self.config.frames_per_block, 1)

    def _embed(self, batch: TrainingBatch) -> Float[Tensor, "batch seq hidden"]:
        """Embedding of every position, with its word context where speech is paced."""
        embeddings = self._embed_segments(batch)
        return embeddings if self.word_context is None else embeddings + self._words(batch)

    def _embed_segments(self, batch: TrainingBatch) -> Float[Tensor, "batch seq hidden"]:
        """Embedding of tokens, clean frames, and noisy or blank frames."""
        seen = slice(batch.backbone_length)
        prefix = self.embed_prefix(batch.token_ids[:, seen], batch.speaker, batch.document[:, seen])
        audio = self.latent_proj(batch.latent_inputs[:, seen].to(self.dtype))
        segment = batch.segment[:, seen].unsqueeze(-1)
        clean = torch.where(segment == CLEAN, audio + self.clean_type, audio)
        embeddings = torch.where(segment == PREFIX, prefix, clean)
        if self.time_embedding is None:
            return torch.where(segment == NOISY, audio + self.noisy_type, embeddings)
        frames = batch.noisy_frames
        time = self.embed_time(self._block_time(batch))
        return (
            embeddings.flatten(0, 1)
            .index_add(0, frames.flatten(), time.expand(-1, frames.shape[1], -1).flatten(0, 1))
            .view_as(embeddings)
        )

    def _words(self, batch: TrainingBatch) -> Float[Tensor, "batch seq hidden"]:
        """Word context of every audio frame and transcript token, 0 elsewhere."""
        assert self.word_context is not None
        seen = slice(batch.backbone_length)
        tokens = self.backbone.embed_tokens(batch.token_ids[:, seen])
        features = self.word_context.features(tokens) * batch.is_word[:, seen, None]
        centre = batch.word_centre[:, seen]
        row = torch.arange(len(centre), device=centre.device)[:, None] * centre.shape[1]
        centre = torch.where(centre < 0, -features.numel(), centre + row)
        return self.word_context(features.flatten(0, 1), centre.flatten()).view_as(tokens)

    def words_around(
        self,
        token_ids: Int[Tensor, " text"],
        num_words: int,
        position: Float[Tensor, " frames"],
    ) -> Float[Tensor, "frames hidden"]:
        """Word context of frames or transcript tokens at given positions.

        Args:
            token_ids: The prefix.
            num_words: Its transcript tokens, which end it but for one token.
            position: Their rotary positions.
        """
        assert self.word_context is not None
        first = len(token_ids) - 1 - num_words
        features = self.word_context.features(self.backbone.embed_tokens(token_ids[first:-1]))
        return self.word_context(features, centre_of(position, first, num_words) - first)

    @staticmethod
    def _block_time(batch: TrainingBatch) -> Float[Tensor, "noisy_blocks 1"]:
        """Flow time of every noisy block; its frames share it."""
        return batch.flow_time.flatten()[batch.noisy_frames[:, :1]]

    def _attention(self, batch: TrainingBatch) -> Attend:
        """Attention of a packed pass, in the form that is fastest on the device."""
        if batch.document.is_cuda:
            return PackedAttention(arflow_block_mask(batch.mask_indices))
        return DocumentAttention(batch.mask_indices, self.config.frames_per_block)

    def hidden_states(self, batch: TrainingBatch) -> Float[Tensor, "batch seq hidden"]:
        """Normalised hidden states at the positions that the backbone sees."""
        route = None
        if self.config.expert.placement != "none":
            route = route_tokens(batch.expert_tokens, is_training=self.training)
        rotary = self.backbone.rotary(batch.position[:, : batch.backbone_length], self.dtype)
        return self.backbone(self._embed(batch), rotary, self._attention(batch), route)

    def _velocity(
        self, batch: TrainingBatch, hidden: Float[Tensor, "batch seq hidden"]
    ) -> Float[Tensor, "noisy_blocks block_frames latent_dim"]:
        """Velocity of every noisy block."""
        time = self._block_time(batch)
        if isinstance(self.flow_head, ThinFlowHead):
            return self.flow_head(hidden.flatten(0, 1)[batch.predictors], time)
        # Projected once, however many copies a state serves.
        condition = self.flow_head.condition(hidden).flatten(0, 1)[batch.predictors]
        noisy_latents = batch.latent_inputs.flatten(0, 1)[batch.noisy_frames]
        return self.flow_head(noisy_latents, time, condition)

    def forward(self, batch: TrainingBatch) -> ModelOutput:
        """Velocity and stop logit at every position of a packed batch.

        The stop head reads detached states: no gradient of the stop loss reaches the backbone.
        """
        hidden = self.hidden_states(batch)
        blocks = self._velocity(batch, hidden)
        velocity = blocks.new_zeros(batch.document.numel(), blocks.shape[-1]).index_copy(
            0, batch.noisy_frames.flatten(), blocks.flatten(0, 1)
        )
        padding = (0, batch.document.shape[1] - batch.backbone_length)
        durations = None if self.duration_head is None else self.duration_head(hidden)
        return ModelOutput(
            velocity=velocity.view(*batch.document.shape, -1),
            stop_logit=F.pad(self.stop_head(hidden.detach()), padding),
            log_duration=None if durations is None else F.pad(durations, padding),
        )
