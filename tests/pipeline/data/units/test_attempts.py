from __future__ import annotations

import pytest

from pipeline.data.units import attempts as module
from pipeline.data.units.attempts import ATTEMPTS, DEATHS_TO_BLAME, MAX_SUSPECTS, Attempts
from pipeline.storage import Folder


def attempts(tmp_path, run_id: str = "run", max_attempts: int = 3) -> Attempts:
    return Attempts(Folder.at(tmp_path), run_id, max_attempts)


def test_deaths_without_a_culprit_are_limited(tmp_path):
    verdicts = [attempts(tmp_path).begin("u").verdict for _ in range(4)]
    assert [bool(verdict) for verdict in verdicts] == [False, False, False, True]
    assert "died 3 times" in verdicts[-1]


def test_item_at_which_two_workers_died_may_not_be_entered_again(tmp_path):
    attempts(tmp_path).begin("u").enter("a")  # a first attempt notes nothing, and dies
    for number in (2, 3):
        attempt = attempts(tmp_path).begin("u")
        assert attempt.number == number
        assert attempt.enter("a")
        assert attempt.enter("b")  # dies here
    last = attempts(tmp_path).begin("u")
    assert last.enter("a")
    assert not last.enter("b")
    assert last.enter("c")
    assert not last.verdict


def test_death_outside_any_item_is_a_blind_one(tmp_path):
    attempts(tmp_path).begin("u")
    for _ in range(2):
        attempt = attempts(tmp_path).begin("u")
        assert attempt.enter("a")
        assert attempt.enter("")  # dies in work that is of no single item
    last = attempts(tmp_path).begin("u")
    assert "worker died 3 times" in last.verdict
    assert last.enter("a")


def test_deaths_with_a_culprit_do_not_count_as_blind_ones_but_are_limited_too(tmp_path):
    attempts(tmp_path).begin("u")
    verdict, limit = "", DEATHS_TO_BLAME * MAX_SUSPECTS
    for item in range(limit + 2):
        attempt = attempts(tmp_path).begin("u")
        verdict = attempt.verdict
        if verdict:
            break
        assert attempt.enter(str(item))
    assert item == limit + 1
    assert "items killed the worker" in verdict


@pytest.mark.parametrize("item", ["a", ""])
def test_workers_of_lost_nodes_blame_no_clip_and_use_up_no_attempt(tmp_path, monkeypatch, item):
    nodes = [f"spot-{number}" for number in range(2 * DEATHS_TO_BLAME + 3)]
    for node in nodes:
        monkeypatch.setattr(module, "this_node", lambda node=node: node)
        monkeypatch.setattr(module, "is_node_lost", lambda before: before in nodes)
        attempt = attempts(tmp_path).begin("u")
        assert (attempt.number, attempt.verdict) == (1, "")
        assert attempt.enter(item)
    monkeypatch.setattr(module, "is_node_lost", lambda _: False)
    attempt = attempts(tmp_path).begin("u")
    assert attempt.number == 2, "a death on a node that lives counts"


def test_a_clip_that_kills_workers_between_lost_nodes_is_found(tmp_path, monkeypatch):
    attempts(tmp_path).begin("u")
    for is_lost in (False, True, False, True, True):
        monkeypatch.setattr(module, "is_node_lost", lambda _, lost=is_lost: lost)
        attempt = attempts(tmp_path).begin("u")
        assert attempt.enter("a"), "one death at it so far"
    monkeypatch.setattr(module, "is_node_lost", lambda _: False)
    assert not attempts(tmp_path).begin("u").enter("a")


def test_another_run_starts_afresh(tmp_path):
    for _ in range(3):
        attempts(tmp_path).begin("u")
    assert attempts(tmp_path, run_id="other").begin("u").number == 1


def test_nothing_is_left_behind(tmp_path):
    counts = attempts(tmp_path)
    counts.begin("u")
    assert (tmp_path / ATTEMPTS / "u.json").exists()
    counts.end("u")
    assert not (tmp_path / ATTEMPTS / "u.json").exists()
    counts.clear()
    assert not (tmp_path / ATTEMPTS).exists()
