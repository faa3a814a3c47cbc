"""Compile passes of a small model for some shapes; prints the graphs of each, one a line.

The argument is the kind of head.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable

import torch
from torch import Tensor

from model.flow_schedule import FlowSchedule
from model.generation import Sampler, SamplingOptions
from model.slot_passes import Passes, Shape
from model.slots import SlotPlan, Slots
from tests.factories.model import LOCAL_HEAD, random_model, tiny_config

_PLAN = SlotPlan(num_slots=3, num_text=9, num_frames=32, num_evaluations=8, compiles=True)


def main() -> None:
    """Every pass runs twice: what is compiled again counts twice."""
    graphs: list[torch.fx.GraphModule] = []

    def keep(graph: torch.fx.GraphModule, _: list[Tensor]) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    torch.compile = functools.partial(torch.compile, backend=keep)
    heads = {"thin": tiny_config().head, "local": LOCAL_HEAD}
    config = tiny_config(head=heads[sys.argv[1]])
    # Tracing takes its time by the layer, and they are alike.
    backbone = dataclasses.replace(config.backbone, num_layers=1)
    config = dataclasses.replace(config, backbone=backbone)
    model = random_model(config).requires_grad_(False)
    model.backbone.join()
    slots = Slots(model.config, _PLAN, model.device, model.dtype)
    passes = Passes(model, slots, _PLAN, _schedule(Sampler(model)))
    # Not the 8 of Dynamo, beyond which it silently compiles nothing: three shapes show it then.
    torch._dynamo.config.recompile_limit = 2
    asked: list[Callable[[], None]] = []
    if sys.argv[1] == "local":
        shape = Shape(1, slots.size, uses_expert=True)
        asked += [
            functools.partial(passes.condition, shape, writes_pending=w) for w in (True, False)
        ]
        asked.append(functools.partial(passes.evaluate, shape, writes_pending=False))
    else:
        asked += [
            functools.partial(
                passes.evaluate, Shape(num_slots, slots.size, uses_expert), writes_pending=writes
            )
            for num_slots, uses_expert, writes in (
                (1, False, True),
                (1, True, False),
                (2, True, True),
            )
        ]
    for run in asked:
        before = len(graphs)
        for _ in range(2):
            run()
            passes.buffers.evaluation.zero_()
        sys.stdout.write(f"{len(graphs) - before}\n")


def _schedule(sampler: Sampler) -> FlowSchedule:
    return sampler._schedule(SamplingOptions().path(is_first=False))


if __name__ == "__main__":
    with torch.inference_mode():
        main()
