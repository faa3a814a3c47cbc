"""Adapters of low rank on trained weights, which the library peft adds and merges.

The trained weights, the base, are frozen. A run keeps one copy of them as they were, and its
checkpoints hold the adapters alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from model.audiocalm import AudioCALM
from model.config import ModelConfig
from model.cost import sizes
from model.layers import shapes_only
from pipeline.errors import SettingsError
from pipeline.training.checkpoint import filling, opened_base
from pipeline.training.checkpoint_store import CheckpointStore
from pipeline.training.settings import LoraSettings

_ADAPTER = "default"
"""Name of the adapters in peft, which could hold several."""
_ADAPTED = ("backbone.layers.", "flow_head.")
"""Parts of the model whose linear maps get adapters by default."""
_ALWAYS = ("stop_head.", "duration_head.")
"""Parts whose linear maps always get adapters: they read the states that other adapters change, and
the loss of the stop head reaches nothing else."""


def add_adapters(model: AudioCALM, settings: LoraSettings) -> Any:
    """Give linear maps of a model adapters, in place, and freeze everything else.

    Returns:
        The `LoraModel` of peft, which can merge them.

    Raises:
        SettingsError: If a target is no linear map, or the extra `lora` is missing.
    """
    peft = _peft()
    config = peft.LoraConfig(
        r=settings.rank, lora_alpha=settings.alpha, target_modules=_targets(model, settings)
    )
    return peft.LoraModel(model, {_ADAPTER: config}, _ADAPTER)


def adapter_start(model: AudioCALM) -> Callable[[nn.Module], None]:
    """A function that makes a module of an adapter start as peft starts it.

    The first of its two maps is drawn as any linear map of torch is, and the second is zero: the
    model starts as its base.
    """
    layer_type = _peft().tuners.lora.LoraLayer
    zero = {m.lora_B[_ADAPTER] for m in model.modules() if isinstance(m, layer_type)}

    def fill(module: nn.Module) -> None:
        """Set the second map of an adapter to zero; other modules keep their values."""
        if module in zero:
            for parameter in module.parameters():
                nn.init.zeros_(parameter)

    return fill


@contextlib.contextmanager
def filled_from_base(
    store: CheckpointStore, model: AudioCALM
) -> Iterator[Callable[[nn.Module], None]]:
    """A function that gives a module of the model its own weights of the base.

    Args:
        store: Checkpoints of a run that keeps a base.
        model: A model of its configuration, which gets its adapters afterwards; may be on the meta
            device.
    """
    with opened_base(store) as reader:
        yield filling(model, lambda name, shape: reader.tensor(name))


def num_trained(config: ModelConfig, settings: LoraSettings | None) -> int:
    """Number of parameters that are trained: those of the adapters, or all without adapters.

    Raises:
        SettingsError: If a target is no linear map, or the extra `lora` is missing.
    """
    if settings is None:
        return sizes(config).total
    with shapes_only():
        model = AudioCALM(config)
        add_adapters(model, settings)
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def _targets(model: AudioCALM, settings: LoraSettings) -> list[str]:
    """Names of the linear maps that get adapters."""
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if settings.targets is None:
        return [name for name in linear if name.startswith((*_ADAPTED, *_ALWAYS))]
    found = {name for name in linear if name.startswith(_ALWAYS)}
    for target in settings.targets:
        matching = {name for name in linear if f".{name}".endswith(f".{target}")}
        if not matching:
            known = sorted({name.rpartition(".")[2] for name in linear})
            raise SettingsError(
                f"model.lora.targets names {target!r} and no linear map of the model ends so; "
                f"there are {', '.join(known)}"
            )
        found |= matching
    return sorted(found)


def _peft() -> Any:
    """The library, which is an extra."""
    try:
        import peft
    except ImportError as error:
        raise SettingsError(
            "model.lora needs the package peft; install the extra `lora`"
        ) from error
    return peft
