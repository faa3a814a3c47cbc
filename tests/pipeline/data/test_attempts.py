from __future__ import annotations

from pipeline.data.attempts import ATTEMPTS, MAX_SUSPECTS, Attempts
from pipeline.storage import Folder


def attempts(tmp_path, run_id: str = "run", max_attempts: int = 3) -> Attempts:
    return Attempts(Folder.at(tmp_path), run_id, max_attempts)


def test_deaths_without_a_culprit_are_limited(tmp_path):
    verdicts = [attempts(tmp_path).begin("u").verdict for _ in range(4)]
    assert [bool(verdict) for verdict in verdicts] == [False, False, False, True]
    assert "died 3 times" in verdicts[-1]


def test_item_entered_before_a_death_may_not_be_entered_again(tmp_path):
    attempts(tmp_path).begin("u").enter("a")  # a first attempt notes nothing, and dies
    second = attempts(tmp_path).begin("u")
    assert second.number == 2
    assert second.enter("a")
    assert second.enter("b")  # dies here
    third = attempts(tmp_path).begin("u")
    assert third.enter("a")
    assert not third.enter("b")
    assert third.enter("c")
    assert not third.verdict


def test_deaths_with_a_culprit_do_not_count_as_blind_ones_but_are_limited_too(tmp_path):
    attempts(tmp_path).begin("u")
    verdict = ""
    for item in range(MAX_SUSPECTS + 2):
        attempt = attempts(tmp_path).begin("u")
        verdict = attempt.verdict
        if verdict:
            break
        assert attempt.enter(str(item))
    assert item == MAX_SUSPECTS + 1
    assert "items killed the worker" in verdict


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
