"""Compile the passes of a small model for nine shapes; prints the graphs of each, one a line."""

from __future__ import annotations

import functools
import itertools
import sys

import torch
from torch import Tensor

from model.flow_schedule import FlowSchedule
from model.generation import Sampler, SamplingOptions
from model.slot_passes import Passes, Shape
from model.slots import SlotPlan, Slots
from tests.factories.model import random_model, tiny_config

_PLAN = SlotPlan(num_slots=3, num_text=9, num_frames=32, num_evaluations=8, compiles=True)


def main() -> None:
    """Every pass runs twice: what is compiled again counts twice."""
    graphs: list[torch.fx.GraphModule] = []

    def keep(graph: torch.fx.GraphModule, _: list[Tensor]) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    torch.compile = functools.partial(torch.compile, backend=keep)
    model = random_model(tiny_config()).requires_grad_(False)
    model.backbone.join()
    slots = Slots(model.config, _PLAN, model.device, model.dtype)
    passes = Passes(model, slots, _PLAN, _schedule(Sampler(model)))
    shapes = itertools.product((1, 2, 3), (False, True), (True, False))
    for num_slots, uses_expert, writes_pending in itertools.islice(shapes, 9):
        before = len(graphs)
        for _ in range(2):
            passes.evaluate(
                Shape(num_slots, slots.size, uses_expert), writes_pending=writes_pending
            )
            passes.buffers.evaluation.zero_()
        sys.stdout.write(f"{len(graphs) - before}\n")


def _schedule(sampler: Sampler) -> FlowSchedule:
    return sampler._schedule(SamplingOptions().path(is_first=False))


if __name__ == "__main__":
    with torch.inference_mode():
        main()
