"""What a GPU offers, and what a training run keeps in its memory."""

from __future__ import annotations

from model.config import ModelConfig
from model.cost import Counts

_GPUS = {
    "A100": (312e12, 80e9),
    "A800": (312e12, 80e9),
    "H100": (989e12, 80e9),
    "H200": (989e12, 141e9),
    "H800": (989e12, 80e9),
    "B200": (2250e12, 180e9),
    "L40S": (362e12, 48e9),
    "RTX 4090": (165e12, 24e9),
}
"""Dense bf16 operations per second and bytes of memory, as vendors state them, by a part of the
name of the device."""
_CHECKPOINT_BYTES = 16
"""Bytes of a checkpoint per parameter: weight, two moments and average in float32."""


def peak_flops(device_name: str) -> float | None:
    """Dense bf16 operations per second of a GPU; None if it is not known."""
    return next((peak for part, (peak, _) in _GPUS.items() if part in device_name), None)


def memory_bytes(device_name: str) -> float | None:
    """Memory of a GPU; None if it is not known."""
    return next((size for part, (_, size) in _GPUS.items() if part in device_name), None)


def gpu_names() -> list[str]:
    """GPUs whose peak and memory are known."""
    return sorted(_GPUS)


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
        layer += counts.expert_positions * (hidden + 4 * config.expert.width(backbone.ffn_dim))
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
