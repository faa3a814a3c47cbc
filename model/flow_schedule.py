"""All that a solver path needs of flow time, computed once under the present weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from model.audiocalm import AudioCALM
from model.flow import (
    EVALUATIONS_PER_STEP,
    evaluation_times,
    sde_noise_std,
    solver_moves,
    time_grid,
)
from model.flow_head import Modulation
from model.sampling import FlowPath


@dataclass(frozen=True, eq=False)
class FlowPoint:
    """What an evaluation takes from its flow time.

    Attributes:
        time: Flow time itself, `requests 1 1`.
        move: How far it carries the state along the velocity, `requests 1 1`.
        embedding: What marks the frames of a noisy block in the backbone, `rows 1 hidden`; None
            under the local head.
        modulations: Of the head's layers, each tensor `rows 1 width`.
    """

    time: Tensor
    move: Tensor
    embedding: Tensor | None
    modulations: Sequence[Modulation]


@dataclass(frozen=True, eq=False)
class FlowSchedule:
    """A solver path.

    Attributes:
        points: Of its evaluations, in order; one request, one row.
        is_state: Whether the move of an evaluation ends at a point of the grid.
        is_guided: Whether an evaluation asks for the unconditional velocity where there is one.
        noise_std: Of the noise after every evaluation at an SDE temperature of 1, on the CPU.
    """

    points: list[FlowPoint]
    is_state: tuple[bool, ...]
    is_guided: tuple[bool, ...]
    noise_std: Float[Tensor, " times"]

    @cached_property
    def table(self) -> Float[Tensor, "times width"]:
        """Embedding and modulations of every evaluation, side by side."""
        return torch.stack([torch.cat(_flat(point), dim=-1).flatten() for point in self.points])

    def taken_apart(self, of_rows: Float[Tensor, "batch 1 width"]) -> FlowPoint:
        """Rows of tables of the same model as what an evaluation takes; without time and move."""
        example = self.points[0]
        parts = iter(of_rows.split([part.shape[-1] for part in _flat(example)], dim=-1))
        embedding = None if example.embedding is None else next(parts)
        modulations = [[next(parts) for _ in layer] for layer in example.modulations]
        return FlowPoint(example.time, example.move, embedding, modulations)


def _flat(point: FlowPoint) -> list[Tensor]:
    marks = [] if point.embedding is None else [point.embedding]
    return [*marks, *(part for layer in point.modulations for part in layer)]


@torch.no_grad()
def flow_schedule(model: AudioCALM, path: FlowPath) -> FlowSchedule:
    """The solver path of some options."""
    grid = time_grid(path.time_grid, path.num_flow_steps, path.grid_shift)
    times = evaluation_times(grid, path.solver)
    moves = solver_moves(grid, path.solver).to(model.device)
    # Axes: evaluation, row, frame. Taken apart now, so that no evaluation indexes anything.
    at = times.to(model.device)[:, None, None]
    embedding = None if model.time_embedding is None else model.embed_time(at)
    modulations = model.flow_head.modulations(at)
    points = [
        FlowPoint(
            at[i : i + 1],
            moves[i].view(1, 1, 1),
            None if embedding is None else embedding[i].contiguous(),
            [[part[i].contiguous() for part in layer] for layer in modulations],
        )
        for i in range(len(times))
    ]
    per_step = EVALUATIONS_PER_STEP[path.solver]
    start, end = path.guidance_interval
    return FlowSchedule(
        points,
        is_state=tuple((i + 1) % per_step == 0 for i in range(len(times))),
        is_guided=tuple(start <= time <= end for time in times.tolist()),
        noise_std=sde_noise_std(grid, path.solver),
    )


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
        torch.cat([point.time for point in points]),
        torch.cat([point.move for point in points]),
        torch.cat(marks) if marks else None,
        [[torch.cat(parts) for parts in zip(*layer, strict=True)] for layer in layers],
    )
