"""The comparison and the plan of `make chaos` can be trusted, and one short seed of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import ray

from tests.chaos.__main__ import seeds_of
from tests.chaos.forked import Forks
from tests.chaos.kills import VICTIMS, plan_kills
from tests.chaos.prepare import Arena, differences, digests
from tests.factories.s3 import Outage, s3_bucket

SEED = 6
"""Kills an actor, then the driver at its first record, then another worker process."""


def test_every_seed_kills_each_victim_once_in_order_of_the_points():
    plans = [plan_kills(seed, 50) for seed in range(20)]
    for plan in plans:
        assert sorted(kill.victim for kill in plan) == sorted(VICTIMS)
        assert [kill.after for kill in plan] == sorted(kill.after for kill in plan)
        assert all(0 <= kill.after < 50 for kill in plan)
    assert plans[3] == plan_kills(3, 50)
    assert len({plan[0].victim for plan in plans}) == 3
    assert len({kill.after for plan in plans for kill in plan}) > 20


def test_missing_extra_and_changed_files_and_folders_are_distinguished(tmp_path: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/same").write_bytes(b"1")
    (tmp_path / "a/other").write_bytes(b"2")
    expected = digests(tmp_path)
    assert differences(expected, digests(tmp_path)) == []
    (tmp_path / "a/other").write_bytes(b"3")
    (tmp_path / "a/same").unlink()
    (tmp_path / "left-over").mkdir()
    assert differences(expected, digests(tmp_path)) == [
        "other bytes: a/other",
        "missing: a/same",
        "extra: left-over",
    ]


def test_seeds_are_numbers_and_ranges():
    assert seeds_of("0-2,7,9-9") == [0, 1, 2, 7, 9]


@pytest.mark.ray
@pytest.mark.slow
def test_prepare_ends_in_the_same_bytes_whatever_is_killed(ray_session, tmp_path: Path):
    arena = Arena.build(tmp_path, 12, ray.get_runtime_context().gcs_address)
    outcome = arena.run(SEED)
    assert {kill.victim for kill in outcome.kills} == set(VICTIMS), str(outcome)
    assert outcome.failures == []
    assert outcome.differences == []


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_another_recipe_between_two_kills_leaves_nothing_behind(tmp_path: Path):
    outcome = Forks(Arena.build(tmp_path, 6), num_kills=2, changes_recipes=True).run(SEED)
    assert outcome.failures == []
    assert outcome.differences == []


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_two_drivers_at_once_on_failing_storage_end_in_the_same_bytes(tmp_path: Path):
    arena, outage = Arena.build(tmp_path, 6), Outage()
    with s3_bucket("chaos", outage) as uri:
        outage.share = 0.03
        outcome = Forks(arena, num_kills=2, num_drivers=2, bucket=uri).run(SEED)
    assert outcome.failures == []
    assert outcome.differences == []
    assert outage.num_failed > 0
