from __future__ import annotations

import io
import sys

from pipeline.data.units import progress as module
from pipeline.data.units.progress import Progress


def test_without_terminal_there_are_plain_lines(monkeypatch, caplog):
    monkeypatch.setattr(module, "_LINE_EVERY_S", 0.0)
    with caplog.at_level("INFO"), Progress("encode", 2) as progress:
        progress.advance(10, 1)
        progress.advance(5, 0)
    assert [record.message for record in caplog.records] == [
        "encode: 1/2 units, 10 items, 1 rejected",
        "encode: 2/2 units, 15 items, 1 rejected",
    ]


def test_lines_keep_their_distance(monkeypatch, caplog):
    monkeypatch.setattr(module, "_LINE_EVERY_S", 3600.0)
    with caplog.at_level("INFO"), Progress("encode", 100) as progress:
        for _ in range(100):
            progress.advance(1, 0)
    assert not caplog.records


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_terminal_shows_a_bar_instead_of_lines(monkeypatch, caplog):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with caplog.at_level("INFO"), Progress("encode", 2) as progress:
        progress.advance(10, 1)
        progress.advance(5, 0)
    assert "encode" in terminal.getvalue()
    assert "2/2" in terminal.getvalue()
    assert not caplog.records
