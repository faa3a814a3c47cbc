"""The DeepSpeed engine. Its configuration is derived from the settings of the run.

One step is any number of `backward` calls and one `step`: the number of micro-batches varies with
how the documents pack, so accumulation is ours and DeepSpeed only shards and reduces.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import shutil
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from model.audiocalm import AudioCALM
from model.optim import adamw, average_decay, parameter_groups, set_rates, update_average
from pipeline.errors import NonFiniteError, SettingsError
from pipeline.training.partitions import Partitions
from pipeline.training.settings import TrainSettings

_LARGEST_BUCKET = 204_800_000
"""Elements of a reduction bucket; smaller models use their own size, since it is allocated."""
_BUCKET_ALIGNMENT = 1024
"""DeepSpeed asks for a multiple of its own alignment, which grows with the world size."""


def precision_of(settings: TrainSettings) -> str:
    """The precision, fp32 or bf16, with `auto` resolved for the device of the run."""
    chosen = settings.engine.precision
    if chosen == "auto":
        is_fast = settings.engine.use_gpu or torch.cpu._is_amx_tile_supported()
        return "bf16" if is_fast else "fp32"
    return chosen


def engine_config(settings: TrainSettings, num_parameters: int) -> dict[str, Any]:
    """The configuration that DeepSpeed reads.

    Args:
        settings: The run's settings.
        num_parameters: Parameters that are trained; bounds the communication buckets.
    """
    aligned = -(-num_parameters // _BUCKET_ALIGNMENT) * _BUCKET_ALIGNMENT
    bucket = min(aligned, _LARGEST_BUCKET)
    return {
        "train_micro_batch_size_per_gpu": settings.feed.rows_per_micro_batch,
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,
        "gradient_clipping": settings.optim.clip_norm,
        # Non-finite gradients leave weights and moments untouched on every rank.
        "bf16": {"enabled": precision_of(settings) == "bf16", "check_grad_overflow": True},
        "zero_optimization": {
            "stage": settings.engine.zero_stage,
            "contiguous_gradients": True,
            "reduce_bucket_size": bucket,
            "allgather_bucket_size": bucket,
        },
        "steps_per_print": 10**12,
        "wall_clock_breakdown": False,
    }


def check_compiler(settings: TrainSettings) -> None:
    """Refuse to compile layers for a CPU without a C++ compiler.

    Raises:
        SettingsError: If there is none.
    """
    if not settings.engine.compile_layers or settings.engine.use_gpu:
        return
    names = (os.environ.get("CXX"), "g++", "clang++")
    if not any(name and shutil.which(name) for name in names):
        raise SettingsError(
            "engine.compile_layers is true and there is no C++ compiler (g++, clang++, or the one "
            "that CXX names); install g++, or set engine.compile_layers=false"
        )


class TrainEngine:
    """Model, optimiser and weight average of one worker.

    Needs an initialised `torch.distributed` process group.

    Args:
        model: Model with the same weights on every worker.
        settings: The run's settings.
        device: This worker's device.
    """

    def __init__(self, model: AudioCALM, settings: TrainSettings, device: torch.device) -> None:
        os.environ.setdefault("DS_ACCELERATOR", device.type)
        deepspeed = quiet_deepspeed()
        self._optim = settings.optim
        self.module = model.to(device)
        self.module.train()
        self.module.backbone.recomputes_layers = settings.engine.recompute_layers
        if settings.engine.compile_layers:
            self.module.compile_layers()
        optimiser = adamw(
            parameter_groups(self.module, settings.optim, whole_shape), settings.optim
        )
        counts = [(math.prod(whole_shape(p)), p.requires_grad) for p in model.parameters()]
        self.num_parameters = sum(size for size, _ in counts)
        self.num_trained = sum(size for size, is_trained in counts if is_trained)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._engine: Any = deepspeed.initialize(
                model=self.module,
                optimizer=optimiser,
                config=engine_config(settings, self.num_trained),
                dist_init_required=False,
            )[0]
        self.world_size = torch.distributed.get_world_size()
        self.partitions = Partitions(self._engine, self.module)
        self.average = [weights.clone() for weights in self.partitions.weights]

    def __call__(self, *inputs: Any) -> Any:
        """The forward pass."""
        with _torch_warnings_ignored():
            return self._engine(*inputs)

    def backward(self, loss: Tensor) -> None:
        """Accumulate the gradients of one micro-batch.

        Args:
            loss: Share of this micro-batch in the loss of the whole step. Shares are summed over
                micro-batches and workers; DeepSpeed's mean over workers is undone here.
        """
        with _torch_warnings_ignored():
            self._engine.backward(loss * self.world_size, scale_wrt_gas=False)

    def step(self, step: int) -> float:
        """Update weights and average with the accumulated gradients; returns their norm.

        Args:
            step: Number of steps already taken, for learning rate and decay.

        Raises:
            NonFiniteError: On every worker, and before any weight changed, if a gradient of any
                worker is not finite.
        """
        set_rates(self._engine.optimizer.param_groups, step, self._optim)
        with _torch_warnings_ignored():
            self._engine.step()
        norm = float(self._engine.get_global_grad_norm())
        if self._engine.optimizer.overflow or not math.isfinite(norm):
            raise NonFiniteError(f"a gradient is not finite at step {step}")
        decay = average_decay(step, self._optim)
        update_average(self.average, self.partitions.weights, decay)
        return norm

    def restore(self, updates: int) -> None:
        """Continue from weights, moments and average that were just filled in.

        Args:
            updates: Number of updates they have had; skipped steps count as none.
        """
        self.partitions.set_step(updates)
        with _torch_warnings_ignored():
            self.partitions.publish()

    @contextlib.contextmanager
    def gathered(
        self, parameters: list[nn.Parameter], *, are_written: bool = False
    ) -> Iterator[None]:
        """Gather parameters for the duration of a block; every worker takes part.

        Args:
            parameters: Parameters of the model.
            are_written: Whether the block changes them; every worker then gets the values of
                rank 0.
        """
        if not any(hasattr(parameter, "ds_id") for parameter in parameters):
            yield
            return
        writer = 0 if are_written else None
        gathering = quiet_deepspeed().zero.GatheredParameters(parameters, modifier_rank=writer)
        with _torch_warnings_ignored(), gathering:
            yield


def whole_shape(parameter: nn.Parameter) -> Sequence[int]:
    """Shape of the whole parameter; under ZeRO-3 the local tensor is empty."""
    shape: Sequence[int] = getattr(parameter, "ds_shape", parameter.shape)
    return shape


def sharding(settings: TrainSettings, device: torch.device) -> Callable[[nn.Module], None] | None:
    """A function that shards a module's own parameters over the workers; None below ZeRO-3.

    The values of rank 0 are used. Needs an initialised `torch.distributed` process group.
    """
    if settings.engine.zero_stage < 3:
        return None
    os.environ.setdefault("DS_ACCELERATOR", device.type)
    zero = quiet_deepspeed().zero
    is_half = precision_of(settings) == "bf16"

    def shard(module: nn.Module) -> None:
        """Keep this worker's share of the module's own parameters."""
        own = list(module.parameters(recurse=False))
        if not own:
            return
        for parameter in own if is_half else ():
            parameter.data = parameter.data.to(torch.bfloat16)
        # It converts what is not converted yet: the children came first.
        config = engine_config(settings, sum(math.prod(whole_shape(p)) for p in own))
        zero.Init(module=module, config_dict_or_path=config)

    return shard


def quiet_deepspeed() -> types.ModuleType:
    """Import DeepSpeed without its warnings and without compiling anything.

    On a CPU it would build a shared-memory collective at first use: about a minute, and a C++
    compiler needed. It builds only what its table of compatible operators holds and does without
    the others, so the table is left empty; nothing else reads it (deepspeed 0.19.8).
    """
    with warnings.catch_warnings():
        # Raised by torch.jit at DeepSpeed's import; nothing its user can change.
        warnings.simplefilter("ignore")
        import deepspeed
        import deepspeed.ops
    deepspeed.ops.__dict__.setdefault("__compatible_ops__", {})
    log = logging.getLogger("DeepSpeed")
    log.setLevel(logging.WARNING)
    log.addFilter(_is_news)
    module: types.ModuleType = deepspeed
    return module


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a line of DeepSpeed's log matters to the user.

    ZeRO-3 warns of dataclasses at module borders, whose tensors it cannot hook. Only the
    outermost module has them; what it owns directly is small and stays gathered, and every layer
    below takes and gives tensors (tests compare ZeRO-3 with plain torch).
    """
    return "unknown inputs or outputs type" not in record.getMessage()


def _torch_warnings_ignored() -> warnings.catch_warnings[None]:
    """Deprecations of torch that DeepSpeed 0.19.8 calls every step."""
    return warnings.catch_warnings(action="ignore", category=FutureWarning)
