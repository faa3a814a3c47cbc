"""What training and sampling cost: positions, floating-point operations, memory.

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
from model.inference.generation import SamplingOptions
from model.sequence import PADDING, document_length

BACKWARD_FACTOR = 3
"""Forward and backward of a training step relative to the forward; recomputation does not count."""
_PEAK_FLOPS = {
    "A100": 312e12,
    "A800": 312e12,
    "H100": 989e12,
    "H200": 989e12,
    "H800": 989e12,
    "B200": 2250e12,
    "L40S": 362e12,
    "RTX 4090": 165e12,
}
"""Dense bf16 operations a second of one device, by a part of its name, as vendors state them."""
_MEMORY_BYTES = {
    "A100": 80e9,
    "A800": 80e9,
    "H100": 80e9,
    "H200": 141e9,
    "H800": 80e9,
    "B200": 180e9,
    "L40S": 48e9,
    "RTX 4090": 24e9,
}
"""Memory of one device as vendors state it, by a part of its name."""
_CHECKPOINT_BYTES = 16
"""Bytes of a checkpoint per parameter: weight, two moments and average in float32."""
_LOCAL_LAYER = 12
"""Weights of a local head's layer in squares of its width: 4 of attention, 8 of feed-forward."""


def peak_flops(device_name: str) -> float | None:
    """Dense bf16 operations a second of a GPU, as its vendor states; None if it is not known."""
    return next((speed for part, speed in _PEAK_FLOPS.items() if part in device_name), None)


def memory_bytes(device_name: str) -> float | None:
    """Memory of a GPU as its vendor states it; None if it is not known."""
    return next((size for part, size in _MEMORY_BYTES.items() if part in device_name), None)


def gpu_names() -> list[str]:
    """GPUs whose peak and memory are known."""
    return sorted(_PEAK_FLOPS.keys() & _MEMORY_BYTES.keys())


@dataclass(frozen=True)
class Counts:
    """How much of everything a forward pass holds.

    Attributes:
        documents: Documents.
        positions: Positions that the backbone sees.
        expert_positions: Those that route to the expert.
        pairs: Query and key pairs that the mask allows.
        noisy_frames: Frames that the flow head sees.
        noisy_blocks: Blocks of them; each has one flow time.
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


@dataclass(frozen=True)
class Work:
    """Floating-point operations by where they fall.

    Attributes:
        dense: Matrix products of the shared backbone, projections and stop head.
        attention: Scores and weighted sums.
        expert: The speech expert.
        head: The flow head.
    """

    dense: int = 0
    attention: int = 0
    expert: int = 0
    head: int = 0

    @property
    def total(self) -> int:
        """All of it."""
        return self.dense + self.attention + self.expert + self.head

    def __add__(self, other: Work) -> Work:
        parts = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return Work(*(mine + theirs for mine, theirs in parts))

    def times(self, factor: int) -> Work:
        """Each part multiplied."""
        return Work(*(factor * part for part in dataclasses.astuple(self)))


def document_counts(
    config: ModelConfig, num_text: int, num_frames: int, num_copies: int, *, uses_expert: bool
) -> Counts:
    """Counts of one training document of whole blocks."""
    frames = config.frames_per_block
    blocks = num_frames // frames
    window = blocks if config.window_blocks is None else config.window_blocks
    # Blocks before each block that it sees, summed over blocks.
    short = min(blocks, window)
    before = short * (short - 1) // 2 + (blocks - short) * window
    in_rows = num_copies if config.head.kind == "thin" else 1
    pairs = num_text * (num_text + 1) // 2
    pairs += (1 + in_rows) * (num_frames * num_text + frames**2 * (before + blocks))
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


def forward_work(config: ModelConfig, counts: Counts) -> Work:
    """Operations of a packed forward pass."""
    backbone, latent_dim = config.backbone, config.latent_dim
    hidden = backbone.hidden_dim
    dense = counts.positions * (
        _layers_dense(config) + 2 * latent_dim * hidden + 2 * hidden * (hidden + 1)
    )
    if config.head.kind == "thin":
        dense += counts.noisy_blocks * 2 * _time_weights(config, hidden)
    if config.speaker_id is not None:
        dense += counts.documents * 2 * config.speaker_dim * hidden
    return Work(
        dense=dense,
        attention=counts.pairs * _pair(config),
        expert=counts.expert_positions * _expert(config),
        head=_head(config, counts.positions, counts.noisy_frames, counts.noisy_blocks),
    )


def training_work(config: ModelConfig, counts: Counts) -> Work:
    """Operations of forward and backward."""
    return forward_work(config, counts).times(BACKWARD_FACTOR)


def sampling_work(
    config: ModelConfig,
    num_text: int,
    num_frames: int,
    options: SamplingOptions,
    *,
    uses_expert: bool,
    num_null: int = 2,
    waits_for_stop: bool = False,
) -> Work:
    """Operations of generating whole blocks, prefill included.

    Args:
        config: Shapes of the model.
        num_text: Tokens of the prefix.
        num_frames: Frames to generate.
        options: Steps, solver and guidance.
        uses_expert: Whether the request routes to the expert.
        num_null: Tokens of the unconditional prefix, which is read once for all requests.
        waits_for_stop: Whether the stop head is asked at every block; it reads the last one too.
    """
    frames, is_thin = config.frames_per_block, config.head.kind == "thin"
    blocks = num_frames // frames
    written = blocks if waits_for_stop else blocks - 1
    evaluations = options.num_flow_steps
    # Passes of the backbone over each block besides the clean write.
    passes = evaluations if is_thin else 1
    work = Work()
    for row in range(1 if options.guidance_scale == 1 else 2):
        seen = [_seen_keys(config, num_null if row else num_text, block) for block in range(blocks)]
        pairs = frames * (sum(seen[:written]) + passes * sum(seen))
        positions = frames * (written + passes * blocks)
        if not row:
            pairs += num_text * (num_text + 1) // 2
            positions += num_text
        work += Work(
            dense=positions * _layers_dense(config),
            attention=pairs * _pair(config),
            expert=positions * _expert(config) if uses_expert else 0,
            head=_head(config, frames * blocks, frames * blocks * evaluations, 0),
        )
    # Latents are embedded once for both rows.
    embedded = frames * (written + (blocks * evaluations if is_thin else 0))
    return work + Work(dense=embedded * 2 * config.latent_dim * config.backbone.hidden_dim)


def _seen_keys(config: ModelConfig, num_text: int, block: int) -> int:
    window = config.window_blocks
    before = block if window is None else min(block, window)
    return num_text + config.frames_per_block * (before + 1)


def _layers_dense(config: ModelConfig) -> int:
    """FLOPs of one position in the shared layers, forward."""
    backbone = config.backbone
    inner = (2 * backbone.num_heads + 2 * backbone.num_kv_heads) * backbone.head_dim
    return 2 * backbone.num_layers * backbone.hidden_dim * (inner + 3 * backbone.ffn_dim)


def _pair(config: ModelConfig) -> int:
    """FLOPs of one query-key pair in all layers and heads: score and weighted sum."""
    backbone = config.backbone
    return 4 * backbone.num_layers * backbone.num_heads * backbone.head_dim


def _expert(config: ModelConfig) -> int:
    """FLOPs of one position in the expert of all layers."""
    backbone = config.backbone
    if config.expert.placement == "none":
        return 0
    return 2 * backbone.num_layers * 3 * backbone.hidden_dim * _expert_width(config)


def _expert_width(config: ModelConfig) -> int:
    return max(1, round(config.expert.ffn_ratio * config.backbone.ffn_dim))


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
        """All of them."""
        return sum(dataclasses.astuple(self))


def sizes(config: ModelConfig) -> Sizes:
    """Parameters of a model, counted without building it in memory."""
    with torch.device("meta"):
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


def training_bytes(num_parameters: int, zero_stage: int, num_workers: int) -> float:
    """Memory of one worker for weights, gradients and optimiser states; activations come on top.

    bfloat16 weights and gradients; float32 master weights, two moments and the released average.

    Args:
        num_parameters: Parameters of the model.
        zero_stage: 0 keeps everything on every worker; 1 shards the optimiser states, 2 the
            gradients too, 3 the weights too.
        num_workers: Workers that share.
    """
    shares = [num_workers if zero_stage >= stage else 1 for stage in (3, 2, 1)]
    return sum(
        num_parameters * size / share for size, share in zip((2, 2, 16), shares, strict=True)
    )


def checkpoint_bytes(num_parameters: int) -> int:
    """Size of one checkpoint of a training run."""
    return _CHECKPOINT_BYTES * num_parameters


def activation_bytes(
    config: ModelConfig,
    counts: Counts,
    *,
    recomputes_layers: bool = False,
    bytes_per_value: int = 2,
) -> int:
    """Memory that one micro-batch keeps between forward and backward on a GPU, uncompiled.

    Statistics of norms and attention, masks and indices are left out; so are the velocities of
    the loss. Compiled layers keep less.

    Args:
        config: Shapes of the model.
        counts: The micro-batch; padding counts as positions too.
        recomputes_layers: Whether layers keep only their input; the peak then holds one of them
            whole.
        bytes_per_value: Width of an activation.
    """
    backbone = config.backbone
    hidden, query = backbone.hidden_dim, backbone.num_heads * backbone.head_dim
    key = backbone.num_kv_heads * backbone.head_dim
    # Input, normalised input and its product with the gain, before attention and feed-forward;
    # the same of queries and keys, but for the product; queries, keys, values and output of the
    # attention; gate, its activation, up and their product.
    layer = counts.positions * (6 * hidden + 4 * query + 4 * key + 4 * backbone.ffn_dim)
    if counts.expert_positions:
        layer += counts.expert_positions * (hidden + 4 * _expert_width(config))
    in_layers = backbone.num_layers * layer
    if recomputes_layers:
        in_layers = backbone.num_layers * counts.positions * hidden + layer
    final_norm_and_stop = 6 * counts.positions * hidden
    in_head = counts.noisy_frames * _head_saved(config)
    return bytes_per_value * (in_layers + final_norm_and_stop + in_head)


def _head_saved(config: ModelConfig) -> int:
    """Values that the flow head keeps of a noisy frame for the backward pass."""
    head, hidden = config.head, config.backbone.hidden_dim
    if head.kind == "thin":
        return hidden + (6 * head.num_layers + 3) * head.hidden_dim
    return (27 * head.num_layers + 4) * head.hidden_dim


def cache_bytes(
    config: ModelConfig, num_frames: float | int, bytes_per_value: int = 2
) -> float | int:
    """Memory of the keys and values of frames in one row; guidance has two rows."""
    backbone = config.backbone
    width = 2 * backbone.num_layers * backbone.num_kv_heads * backbone.head_dim
    return num_frames * width * bytes_per_value
