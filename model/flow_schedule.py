"""All that a solver path needs of flow time, computed once under the present weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.audiocalm import AudioCALM
from model.flow import TimeGrid, time_grid
from model.flow_head import Modulation


@dataclass(frozen=True, eq=False)
class FlowPoint:
    """What an evaluation takes from its flow time.

    Attributes:
        move: How far it carries the state along the velocity, `requests 1 1`.
        embedding: What marks the frames of a noisy block in the backbone, `rows 1 hidden`; None
            under the local head.
        modulations: Of the head's layers, each tensor `rows 1 width`.
    """

    move: Tensor
    embedding: Tensor | None
    modulations: Sequence[Modulation]


FlowSchedule = list[FlowPoint]
"""The evaluations of a block, in solver order; one request, one row."""


@torch.no_grad()
def flow_schedule(model: AudioCALM, kind: TimeGrid, num_flow_steps: int) -> FlowSchedule:
    """The Euler steps over a grid of flow times."""
    grid = time_grid(kind, num_flow_steps)
    moves = grid.diff().to(model.device)
    # Axes: evaluation, row, frame. Split now, so that no evaluation indexes anything.
    at = grid[:-1].to(model.device)[:, None, None]
    embedding = None if model.time_embedding is None else model.embed_time(at)
    modulations = model.flow_head.modulations(at)
    return [
        FlowPoint(
            moves[i].view(1, 1, 1),
            None if embedding is None else embedding[i].contiguous(),
            [[part[i].contiguous() for part in layer] for layer in modulations],
        )
        for i in range(num_flow_steps)
    ]


def side_by_side(points: Sequence[FlowPoint], rows: Sequence[int]) -> FlowPoint:
    """The same evaluation of several requests.

    Args:
        points: Of every request.
        rows: Which of them every row belongs to.
    """
    if all(point is points[0] for point in points):
        return points[0]
    of_rows = [points[index] for index in rows]
    marks = [point.embedding for point in of_rows if point.embedding is not None]
    layers = zip(*(point.modulations for point in of_rows), strict=True)
    return FlowPoint(
        torch.cat([point.move for point in points]),
        torch.cat(marks) if marks else None,
        [[torch.cat(parts) for parts in zip(*layer, strict=True)] for layer in layers],
    )
