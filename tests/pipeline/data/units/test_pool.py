"""How many worker processes a stage starts, and what it refuses before any work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import ray
from pydantic import ValidationError

from pipeline import cluster
from pipeline.data.units.pool import PoolSize
from pipeline.data.units.stage import Resources
from pipeline.errors import SettingsError
from tests.factories.stage import number_units, run_numbers


@pytest.mark.parametrize(
    ("workers", "min_workers", "num_units", "room", "expected"),
    [
        (8, 1, 100, 3, PoolSize(least=1, first=3, most=8)),
        (2, 1, 100, 64, PoolSize(least=1, first=2, most=2)),
        (8, 1, 5, 64, PoolSize(least=1, first=5, most=5)),
        (8, 1, 100, None, PoolSize(least=1, first=8, most=8)),
    ],
)
def test_a_pool_starts_with_what_has_room_and_may_grow_to_its_limit(
    workers: int, min_workers: int, num_units: int, room: int | None, expected: PoolSize
) -> None:
    resources = Resources(workers=workers, min_workers=min_workers)
    assert PoolSize.of(resources, num_units, room) == expected


@pytest.mark.parametrize(
    ("min_workers", "num_units", "expected"),
    [
        (4, 100, PoolSize(least=4, first=4, most=8)),
        (8, 100, PoolSize(least=8, first=8, most=8)),
        (4, 2, PoolSize(least=2, first=2, most=2)),
    ],
)
def test_a_pool_asks_for_its_minimum_where_there_is_no_room_yet(
    min_workers: int, num_units: int, expected: PoolSize
) -> None:
    assert PoolSize.of(Resources(workers=8, min_workers=min_workers), num_units, 0) == expected


def test_a_minimum_above_the_maximum_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"min_workers is 3 .* most there may be, 2; lower"):
        Resources(workers=2, min_workers=3)
    assert Resources(workers=0, min_workers=3).workers == 0, "no process, no minimum"


@pytest.mark.parametrize("asked", [{"gpus": 1}, {"cpus": 64}, {"memory_bytes": 2**50}])
def test_what_the_cluster_can_never_give_is_said_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any]
) -> None:
    node = {"Alive": True, "Resources": {"CPU": 2.0, "memory": 2.0**34}, "Labels": {}}
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "nodes", lambda: [node])
    monkeypatch.setattr(cluster, "_internal_kv_get", lambda _: None)
    with pytest.raises(SettingsError, match=r"numbers asks for .* Ray has 1 node .* lower resourc"):
        run_numbers(tmp_path / "out", number_units(2), resources=Resources(workers=1, **asked))
