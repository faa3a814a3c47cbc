"""Floating-point operations of a pass, and parameters of a model.

Training reports its utilisation from here, benchmarks divide by it, and plans are made of it. An
operation is one multiplication or addition of a matrix product; norms, activations, look-ups and
padding are not counted. Attention counts the pairs that the AR-Flow mask allows, so a kernel that
computes masked pairs as well gets no credit for them.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cache

import torch
from torch import nn

from model.audiocalm import AudioCALM
from model.batch import TrainingBatch
from model.config import ModelConfig
from model.layers import shapes_only
from model.sequence import PADDING, document_length

BACKWARD_FACTOR = 3
"""Operations of forward and backward relative to the forward; recomputation does not count."""


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
    flops = attention_flops(config, counts)
    for name, num_weights in _linear_maps(config).items():
        flops += 2 * num_weights * int(getattr(counts, _applied_to(name)))
    if config.head.kind == "local":
        # Scores and sums over the block itself.
        head = config.head
        seen = counts.noisy_frames * config.frames_per_block
        flops += seen * 4 * head.num_layers * head.hidden_dim
    return flops


def training_flops(config: ModelConfig, counts: Counts) -> int:
    """Operations of forward and backward."""
    return BACKWARD_FACTOR * forward_flops(config, counts)


def attention_flops(config: ModelConfig, counts: Counts) -> int:
    """Scores and weighted sums of the pairs in all layers and heads."""
    backbone = config.backbone
    return counts.pairs * 4 * backbone.num_layers * backbone.num_heads * backbone.head_dim


@cache
def _linear_maps(config: ModelConfig) -> dict[str, int]:
    """Weights of every linear map of a model, by name."""
    with shapes_only():
        model = AudioCALM(config)
    named = model.named_modules()
    return {name: map_.weight.numel() for name, map_ in named if isinstance(map_, nn.Linear)}


def _applied_to(name: str) -> str:
    """The field of `Counts` that tells how often a linear map is applied."""
    if name.startswith("speaker_proj"):
        return "documents"
    if ".expert." in name:
        return "expert_positions"
    if "time_embedding" in name or name.endswith("modulation"):
        return "noisy_blocks"
    reads_states = name.endswith("condition_proj")
    return "noisy_frames" if name.startswith("flow_head") and not reads_states else "positions"


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
