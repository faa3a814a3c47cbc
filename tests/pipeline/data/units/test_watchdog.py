"""A job that hangs is ended, and one that is only slow is not."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path

import pytest

from pipeline.data.units import watchdog as module
from pipeline.data.units.watchdog import Watchdog
from pipeline.errors import PipelineError
from pipeline.storage import Folder
from tests.factories.stage import job_of


def test_the_watchdog_ends_a_job_in_which_nothing_gets_on(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGALRM)
    with (
        pytest.raises(PipelineError, match=r"for 1 s no unit ended and no worker got on"),
        Watchdog(Folder.at(tmp_path), job_of(tmp_path), 1.0),
    ):
        threading.Event().wait(60)
    assert signal.getsignal(signal.SIGALRM) == before


def test_the_watchdog_is_fed_by_units_and_by_signs_of_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SIGNS_PER_TIMEOUT", 60_000)
    with Watchdog(Folder.at(tmp_path), job_of(tmp_path), 600.0) as watchdog:
        for feed in (watchdog.feed, (tmp_path / "0.json").touch, (tmp_path / "1.json").touch):
            watchdog._fed_at = long_ago = time.monotonic() - 300
            feed()
            while watchdog._fed_at == long_ago:  # the test's own limit ends a dead watchdog
                time.sleep(0.005)
