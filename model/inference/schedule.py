"""The evaluations of a block: their flow times, and everything that depends on time alone.

A server meets few schedules, so a sampler computes each once and keeps it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.audiocalm import AudioCALM
from model.flow import time_grid
from model.heads import Modulation


@dataclass(frozen=True, eq=False)
class FlowPoint:
    """One evaluation of the velocity.

    Attributes:
        move: Step along the velocity, `requests 1 1`.
        embedding: Added to the noisy frames in the backbone, `rows 1 hidden`; None under the
            local head.
        modulations: Shift, gain and gate of each layer of the head, `rows 1 width` each.
    """

    move: Tensor
    embedding: Tensor | None
    modulations: Sequence[Modulation]


FlowSchedule = list[FlowPoint]
"""One entry per evaluation, in solver order, for one request with one row."""


@torch.no_grad()
def flow_schedule(model: AudioCALM, num_flow_steps: int) -> FlowSchedule:
    """The Euler steps of a block under the present weights."""
    grid = time_grid(num_flow_steps)
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


def stacked(points: Sequence[FlowPoint], rows: Sequence[int]) -> FlowPoint:
    """The evaluations of several requests as one; their flow times may differ.

    Args:
        points: One evaluation of each request.
        rows: The request that each row belongs to.
    """
    if all(point is points[0] for point in points):
        return points[0]
    by_row = [points[index] for index in rows]
    embeddings = [point.embedding for point in by_row if point.embedding is not None]
    layers = zip(*(point.modulations for point in by_row), strict=True)
    return FlowPoint(
        torch.cat([point.move for point in points]),
        torch.cat(embeddings) if embeddings else None,
        [[torch.cat(parts) for parts in zip(*layer, strict=True)] for layer in layers],
    )
