"""A log is shown once and whole, however often its connection breaks."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator

import pytest

from pipeline.errors import ClusterError
from pipeline.submission.follow import ProgressDisplay, follow, last_lines
from tests.factories.job_server import TRAIN_LOG, FakeServer


def server(**fields: object) -> FakeServer:
    made = FakeServer(**fields)  # type: ignore[arg-type]
    made.add("x-1")
    return made


@pytest.mark.parametrize("cuts", [[], [0], [3, 100, 101], [len(TRAIN_LOG)]])
def test_every_line_is_shown_once_though_the_connection_breaks(cuts: list[int | None]) -> None:
    jobs, lines = server(cuts=list(cuts)), []
    job = follow(jobs, "x-1", lines.append, retry_s=0.0)
    assert lines == TRAIN_LOG.splitlines()
    assert (job.status, jobs.num_tails) == ("SUCCEEDED", len(cuts) + 1)


def test_a_last_line_without_a_line_break_is_shown() -> None:
    lines: list[str] = []
    follow(server(log="one\ntwo", cuts=[5]), "x-1", lines.append, retry_s=0.0)
    assert lines == ["one", "two"]


def test_a_silent_connection_is_renewed() -> None:
    class Silent(FakeServer):
        async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
            if self.num_tails == 0:
                self.num_tails += 1
                yield "one\n"
                await asyncio.Event().wait()
            async for part in super().tail_job_logs(job_id):
                yield part

    jobs, lines = Silent(log="one\ntwo\n"), []
    jobs.add("x-1")
    assert follow(jobs, "x-1", lines.append, silence_s=0.05, retry_s=0.0).status == "SUCCEEDED"
    assert lines == ["one", "two"]


def test_a_job_whose_log_is_gone_with_its_node_ends_too() -> None:
    jobs = server(cuts=[0] * 9, polls_to_end=2, end=("FAILED", None))
    assert follow(jobs, "x-1", print, retry_s=0.0).status == "FAILED"


def test_a_server_that_is_away_for_a_while_is_asked_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    jobs = server(failures=1)
    follow(jobs, "x-1", lambda line: None, retry_s=0.0)
    assert caplog.text.count("no connection to the job server, trying again") == 1


def test_an_unknown_job_is_an_error_at_once() -> None:
    with pytest.raises(ClusterError, match="does not know the job"):
        follow(FakeServer(cuts=[0]), "gone", print, retry_s=0.0)


def test_progress_is_one_line_on_a_terminal_and_warnings_stay() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    display = ProgressDisplay(terminal := Terminal())
    for line in TRAIN_LOG.splitlines():
        display(line)
    display.end_line()
    lines = terminal.getvalue().splitlines()
    assert [line for line in lines if "nearly full" in line]
    assert terminal.getvalue().count("\r") == 4
    assert lines[-1].rstrip().endswith("0.5/s, 2 min 20 s left, last checkpoint at step 20")


def test_progress_is_plain_lines_elsewhere() -> None:
    display = ProgressDisplay(stream := io.StringIO())
    for line in [*TRAIN_LOG.splitlines(), "error: shards are missing"]:
        display(line)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "step 10 of 100, loss 0.5000"
    assert lines[-1] == "error: shards are missing"
    assert "\r" not in stream.getvalue()


def test_the_last_lines_of_a_log_are_none_where_it_cannot_be_read() -> None:
    class Away(FakeServer):
        def get_job_logs(self, job_id: str) -> str:
            raise ConnectionError

    assert last_lines(server(), "x-1", 2) == TRAIN_LOG.splitlines()[-2:]
    assert last_lines(Away(), "x-1", 2) == []
