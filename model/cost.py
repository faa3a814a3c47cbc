"""Floating-point operations of a pass, and parameters of a model.

Training reports its utilisation from here, benchmarks divide by it, and plans are made of it. An
operation is one multiplication or addition of a matrix product; norms, activations, look-ups and
padding are not counted. Attention counts the pairs that the AR-Flow mask allows, so a kernel that
computes masked pairs as well gets no credit for them.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch

from model.audiocalm import AudioCALM
from model.batch import TrainingBatch
from model.config import ModelConfig
from model.layers import shapes_only
from model.sequence import PADDING, document_length

BACKWARD_FACTOR = 3
"""Operations of forward and backward relative to the forward; recomputation does not count."""
_LOCAL_LAYER = 12
"""Weights of a local head's layer in squares of its width: 4 of attention, 8 of feed-forward."""


@dataclass(frozen=True)
class Counts:
    """Sizes of a forward pass that its operations follow from.

    Attributes:
        documents: Documents.
        positions: Positions that the backbone sees.
        expert_positions: Positions that route to the expert.
        pairs: Query and key pairs that the mask allows.
        noisy_frames: Frames that the flow head sees.
        noisy_blocks: Blocks of noisy frames; each has one flow time.
    """

    documents: int = 0
    positions: int = 0
    expert_positions: int = 0
    pairs: int = 0
    noisy_frames: int = 0
    noisy_blocks: int = 0

    def __add__(self, other: Counts) -> Counts:
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return Counts(*(mine + theirs for mine, theirs in pairs))


def document_counts(
    config: ModelConfig, num_text: int, num_frames: int, num_copies: int, *, uses_expert: bool
) -> Counts:
    """Counts of one training document of whole blocks."""
    frames = config.frames_per_block
    blocks = num_frames // frames
    # Every block sees itself and those before it.
    seen = blocks * (blocks + 1) // 2
    in_rows = num_copies if config.head.kind == "thin" else 1
    pairs = num_text * (num_text + 1) // 2
    pairs += (1 + in_rows) * (num_frames * num_text + frames**2 * seen)
    positions = document_length(num_text, num_frames, num_copies, config.head.kind)
    return Counts(
        documents=1,
        positions=positions,
        expert_positions=positions if uses_expert and config.expert.placement != "none" else 0,
        pairs=pairs,
        noisy_frames=num_copies * num_frames,
        noisy_blocks=num_copies * blocks,
    )


def batch_counts(config: ModelConfig, batch: TrainingBatch) -> Counts:
    """Counts of a packed batch, padding and filler rows left out."""
    most = batch.speaker.shape[1]
    row = torch.arange(len(batch.document), device=batch.document.device)[:, None]
    number = row * most + batch.document
    is_used = (batch.document != PADDING) & batch.flow_mask.any(dim=1, keepdim=True)
    slots = len(row) * most
    kinds = torch.bincount((3 * number + batch.segment)[is_used], minlength=3 * slots)
    in_backbone = number[:, : batch.backbone_length].flatten()
    routed = torch.bincount(in_backbone[batch.expert_tokens], minlength=slots)
    total = Counts()
    sized = zip(kinds.view(-1, 3).tolist(), routed.tolist(), strict=True)
    for (num_text, num_frames, num_noisy), num_routed in sized:
        if num_frames:
            # Under the local head blank frames are one more.
            copies = num_noisy // num_frames - (config.head.kind == "local")
            total += document_counts(
                config, num_text, num_frames, copies, uses_expert=num_routed > 0
            )
    return total


def forward_flops(config: ModelConfig, counts: Counts) -> int:
    """Operations of a packed forward pass."""
    latent_dim, hidden = config.latent_dim, config.backbone.hidden_dim
    flops = counts.positions * (
        _layers_dense(config) + 2 * latent_dim * hidden + 2 * hidden * (hidden + 1)
    )
    if config.head.kind == "thin":
        flops += counts.noisy_blocks * 2 * _time_weights(config, hidden)
    if config.speaker_id is not None:
        flops += counts.documents * 2 * config.speaker_dim * hidden
    flops += attention_flops(config, counts) + counts.expert_positions * _expert(config)
    return flops + _head(config, counts.positions, counts.noisy_frames, counts.noisy_blocks)


def training_flops(config: ModelConfig, counts: Counts) -> int:
    """Operations of forward and backward."""
    return BACKWARD_FACTOR * forward_flops(config, counts)


def attention_flops(config: ModelConfig, counts: Counts) -> int:
    """Scores and weighted sums of the pairs in all layers and heads."""
    backbone = config.backbone
    return counts.pairs * 4 * backbone.num_layers * backbone.num_heads * backbone.head_dim


def _layers_dense(config: ModelConfig) -> int:
    """FLOPs of one position in the shared layers, forward."""
    backbone = config.backbone
    inner = (2 * backbone.num_heads + 2 * backbone.num_kv_heads) * backbone.head_dim
    return 2 * backbone.num_layers * backbone.hidden_dim * (inner + 3 * backbone.ffn_dim)


def _expert(config: ModelConfig) -> int:
    """FLOPs of one position in the expert of all layers."""
    backbone = config.backbone
    if config.expert.placement == "none":
        return 0
    width = config.expert.width(backbone.ffn_dim)
    return 2 * backbone.num_layers * 3 * backbone.hidden_dim * width


def _time_weights(config: ModelConfig, width: int) -> int:
    return (config.head.time_embedding_dim + width) * width


def _head(config: ModelConfig, states: int, noisy_frames: int, noisy_blocks: int) -> int:
    """FLOPs of the flow head: states it reads, frames it maps, flow times it embeds."""
    head, latent_dim = config.head, config.latent_dim
    width, layers = head.hidden_dim, head.num_layers
    if head.kind == "thin":
        a_frame = config.backbone.hidden_dim * width + 2 * layers * width**2 + width * latent_dim
        a_block = _time_weights(config, width) + (3 * layers + 2) * width**2
        return 2 * (noisy_frames * a_frame + noisy_blocks * a_block)
    a_frame = 2 * latent_dim * width + layers * _LOCAL_LAYER * width**2
    # Scores and sums over the block itself.
    a_frame += layers * 2 * width * config.frames_per_block
    a_state = config.backbone.hidden_dim * width
    a_block = _time_weights(config, width) + (6 * layers + 2) * width**2
    return 2 * (states * a_state + noisy_frames * a_frame + noisy_blocks * a_block)


@dataclass(frozen=True)
class Sizes:
    """Parameters by part."""

    embedding: int
    backbone: int
    expert: int
    head: int
    other: int

    @property
    def total(self) -> int:
        """Parameters of all parts."""
        return sum(dataclasses.astuple(self))


def sizes(config: ModelConfig) -> Sizes:
    """Parameters of a model, counted without building it in memory."""
    with shapes_only():
        model = AudioCALM(config)
    counted = {item.name: 0 for item in dataclasses.fields(Sizes)}
    for name, parameter in model.named_parameters():
        if "embed_tokens" in name:
            part = "embedding"
        elif ".expert." in name:
            part = "expert"
        else:
            root = name.split(".")[0]
            part = {"backbone": "backbone", "flow_head": "head"}.get(root, "other")
        counted[part] += parameter.numel()
    return Sizes(**counted)
