"""The part of every parameter that a worker's optimiser holds, for any ZeRO stage.

DeepSpeed keeps float32 master weights, and the optimiser its moments, in a few flat tensors on
each worker. Naming the stretches of those tensors by parameter and offset makes a checkpoint
readable at any number of workers and any stage, and an export a matter of reading.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

MOMENTS = ("exp_avg", "exp_avg_sq")
"""AdamW's state beside its step count."""


@dataclass(frozen=True)
class Stretch:
    """Consecutive elements of one parameter, and where this worker keeps them.

    Attributes:
        name: The parameter's name.
        start: Index of the first element in the flattened parameter.
        size: Number of elements.
        flat: Index of the flat tensor.
        offset: Index of the first element in the flat tensor.
    """

    name: str
    start: int
    size: int
    flat: int
    offset: int

    def of(self, flats: list[Tensor]) -> Tensor:
        """The elements, as a view into one of the flat tensors."""
        return flats[self.flat].narrow(0, self.offset, self.size)


class Partitions:
    """This worker's share of the optimiser.

    Args:
        engine: A DeepSpeed engine of ZeRO stage 1, 2 or 3.
        module: The model it holds.
    """

    def __init__(self, engine: Any, module: nn.Module) -> None:
        self._optimizer = engine.optimizer
        self._is_stage3 = hasattr(self._optimizer, "fp32_partitioned_groups_flat")
        found = self._stage3(module) if self._is_stage3 else self._stage12(module)
        self.stretches = sorted(found, key=lambda stretch: (stretch.name, stretch.start))

    @property
    def weights(self) -> list[Tensor]:
        """The float32 master weights, flat."""
        if self._is_stage3:
            flats: list[Tensor] = self._optimizer.fp32_partitioned_groups_flat
        else:
            flats = self._optimizer.single_partition_of_fp32_groups
        return [flat.data for flat in flats]

    def moments(self, name: str) -> list[Tensor]:
        """One of AdamW's moments, flat like the weights; zeros before the first step."""
        return [state[name] for state in self._states()]

    def set_step(self, step: int) -> None:
        """Set the number of updates of AdamW's moments."""
        for state in self._states():
            state["step"].fill_(float(step))

    def publish(self) -> None:
        """Copy the master weights into the parameters that the forward pass reads."""
        with torch.no_grad():
            if self._is_stage3:
                self._publish_stage3()
            else:
                self._optimizer.update_lp_params()

    def _keys(self) -> list[Tensor]:
        """The tensors that are the keys of the torch optimiser's state."""
        if self._is_stage3:
            flats: list[Tensor] = self._optimizer.fp32_partitioned_groups_flat
            return flats
        return list(self._optimizer.single_partition_of_fp32_groups)

    def _states(self) -> list[dict[str, Tensor]]:
        inner: torch.optim.Optimizer = self._optimizer.optimizer
        is_fused = bool(inner.defaults.get("fused"))
        states = []
        for key in self._keys():
            state = inner.state[key]
            if not state:
                place = key.device if is_fused else torch.device("cpu")
                state["step"] = torch.zeros((), dtype=torch.float32, device=place)
                for name in MOMENTS:
                    state[name] = torch.zeros_like(key, requires_grad=False)
            states.append(state)
        return states

    def _stage12(self, module: nn.Module) -> Iterator[Stretch]:
        for name, parameter in module.named_parameters():
            mapping = getattr(parameter, "_hp_mapping", None)
            if mapping is None:  # frozen, or held by other workers alone
                continue
            here, there = mapping.lp_fragment_address, mapping.hp_fragment_address
            yield Stretch(name, here.start, here.numel, mapping.param_group_index, there.start)

    def _stage3(self, module: nn.Module) -> Iterator[Stretch]:
        rank = torch.distributed.get_rank()
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            key = self._optimizer.get_param_id(parameter)
            flat, offset, share = self._optimizer.grad_position[key]
            start = rank * share
            size = min(share, parameter.ds_numel - start)  # type: ignore[attr-defined]  # ZeRO-3
            if size > 0:
                yield Stretch(name, start, size, int(flat), int(offset))

    def _publish_stage3(self) -> None:
        optimizer = self._optimizer
        for number, master in enumerate(optimizer.fp32_partitioned_groups_flat):
            optimizer.fp16_partitioned_groups_flat[number].data.copy_(master.data)
            parts = optimizer.fp16_partitioned_groups[number]
            views = optimizer.unflatten(optimizer.fp16_partitioned_groups_flat[number], parts)
            for part, view in zip(parts, views, strict=True):
                part.data = view.data
        if optimizer.persistent_parameters:
            # Small parameters stay gathered between steps; their whole copies are stale now.
            optimizer.persistent_parameters[0].partition(optimizer.persistent_parameters)
            optimizer.persistent_parameters[0].all_gather(optimizer.persistent_parameters)
