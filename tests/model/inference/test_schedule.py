"""Schedules give each evaluation its own flow time, also beside others."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from model.flow import time_grid
from model.inference.schedule import flow_schedule, stacked
from tests.factories.model import LOCAL_HEAD, random_model, tiny_config


@pytest.mark.parametrize("head", ["thin", "local"])
def test_an_evaluation_holds_what_the_model_computes_at_its_flow_time(head: str) -> None:
    model = random_model(tiny_config(head=LOCAL_HEAD) if head == "local" else tiny_config())
    grid = time_grid(3)
    schedule = flow_schedule(model, 3)
    assert len(schedule) == 3
    for index, point in enumerate(schedule):
        at = grid[index].view(1, 1)
        assert float(point.move) == pytest.approx(float(grid[index + 1] - grid[index]))
        if head == "local":
            assert point.embedding is None
        else:
            torch.testing.assert_close(point.embedding, model.embed_time(at))
        expected = model.flow_head.modulations(at)
        torch.testing.assert_close(
            [list(layer) for layer in point.modulations], [list(layer) for layer in expected]
        )


def test_stacked_evaluations_keep_their_times_row_by_row() -> None:
    model = random_model()
    first, second = flow_schedule(model, 3)[1], flow_schedule(model, 2)[1]
    both = stacked([first, second], rows=[0, 0, 1])

    def parts(of: list[list[Tensor]]) -> list[Tensor]:
        return [part for layer in of for part in layer]

    assert torch.equal(both.move, torch.cat([first.move, second.move]))
    assert torch.equal(both.embedding, torch.cat([first.embedding] * 2 + [second.embedding]))
    for given, mine, other in zip(
        *(parts(point.modulations) for point in (both, first, second)), strict=True
    ):
        assert torch.equal(given, torch.cat([mine, mine, other]))
    assert stacked([first, first], rows=[0, 1]) is first
