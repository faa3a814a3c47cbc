"""The lines that jobs log are those that a follower reads."""

from __future__ import annotations

import logging

import pytest

from pipeline.data.units import progress as stage
from pipeline.progress import ProgressReader, checkpoint_line, duration_text, step_line

PREFIX = "(RayTrainWorker pid=7, ip=10.0.0.2) {} INFO pipeline.training.loop: "


def read(*lines: tuple[str, str]) -> ProgressReader:
    reader = ProgressReader()
    for time, text in lines:
        assert reader.read(PREFIX.format(time) + text), text
    return reader


def test_the_lines_of_a_training_give_step_rate_time_left_and_checkpoint() -> None:
    reader = read(
        ("23:59:50", step_line(100, 1000, 0.5, "gradient norm 1.000")),
        ("23:59:55", checkpoint_line(100)),
        ("00:00:10", step_line(200, 1000, 0.25, "0.10 s a step, data wait 3%, rows 90% full")),
    )
    progress = reader.progress
    assert progress is not None
    assert (progress.done, progress.total, progress.checkpoint) == (200, 1000, 100)
    assert progress.rate == pytest.approx(5.0)
    assert progress.remaining_s == pytest.approx(160)
    assert str(progress) == (
        "step 200 of 1000, loss 0.2500, data wait 3%, 5/s, 2 min 40 s left, "
        "last checkpoint at step 100"
    )


def test_a_restart_from_a_checkpoint_starts_the_rate_anew() -> None:
    reader = read(
        ("10:00:00", step_line(100, 1000, 0.5)),
        ("10:00:10", step_line(200, 1000, 0.5)),
        ("10:05:00", step_line(110, 1000, 0.5)),
    )
    assert reader.progress is not None
    assert reader.progress.rate is None
    assert "left" not in str(reader.progress)


def test_the_lines_of_a_data_stage_are_read_as_they_are_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(stage, "_LINE_EVERY_S", 0.0)
    with caplog.at_level("INFO"), stage.Progress("encode", 3) as progress:
        progress.advance(10, 1)
    formatter = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s", "%H:%M:%S")
    reader = ProgressReader()
    assert reader.read(formatter.format(caplog.records[0]))
    assert str(reader.progress) == "encode: unit 1 of 3, 10 items, 1 rejected"


def test_other_lines_are_no_progress() -> None:
    reader = ProgressReader()
    for line in ("", "step 3 of 4: loss 1.0", "09:00:00 INFO x: step 3 is skipped"):
        assert not reader.read(line)
    assert reader.progress is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3, "3 s"), (125, "2 min 5 s"), (3600 * 5 + 61, "5 h 1 min"), (86400 * 2 + 7200, "2 d 2 h")],
)
def test_durations_have_two_units(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text
