"""What GPUs offer, and what a training run keeps in their memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from model.config import ModelConfig
from model.cost import Counts
from pipeline.errors import SettingsError

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
        check_limits(self, limits, "give a share in [0, 1) or a positive number")

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


def check_limits(values: Any, limits: Mapping[str, bool], remedy: str) -> None:
    """Refuse an object with a field out of range.

    Args:
        values: The object.
        limits: Whether each field, by name, is in range.
        remedy: Advice that ends the error message.

    Raises:
        SettingsError: With name and value of the first such field, and the remedy.
    """
    for name, is_met in limits.items():
        if not is_met:
            raise SettingsError(f"{name} is {getattr(values, name)}; {remedy}")


def training_bytes(
    num_parameters: int, zero_stage: int, num_workers: int, num_trained: int | None = None
) -> float:
    """Memory of one worker for weights, gradients and optimiser states; activations come on top.

    bfloat16 weights and gradients; float32 master weights, two moments and the released average.

    Args:
        num_parameters: Parameters of the model.
        zero_stage: 0 keeps everything on every worker; 1 shards the optimiser states, 2 the
            gradients too, 3 the weights too.
        num_workers: Workers that share.
        num_trained: Parameters that are trained; None is all. The others have weights alone.
    """
    trained = num_parameters if num_trained is None else num_trained
    of_weights, of_gradients, of_optimiser = (
        num_workers if zero_stage >= stage else 1 for stage in (3, 2, 1)
    )
    return (
        2 * num_parameters / of_weights + 2 * trained / of_gradients + 16 * trained / of_optimiser
    )


def checkpoint_bytes(num_trained: int) -> int:
    """Size of one checkpoint of a training run, by the parameters that are trained."""
    return _CHECKPOINT_BYTES * num_trained


def checkpoint_copy_bytes(num_trained: int, num_workers: int) -> float:
    """Host memory of one worker for the copy of its state that a checkpoint is written from.

    Training goes on while the copy is written, and there is never more than one. The states are
    divided among the workers at every ZeRO stage.

    Args:
        num_trained: Parameters that are trained.
        num_workers: Workers of the run.
    """
    return checkpoint_bytes(num_trained) / num_workers


def base_bytes(num_parameters: int) -> int:
    """Size of the weights that a run keeps once below its adapters, at most: float32."""
    return 4 * num_parameters


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
