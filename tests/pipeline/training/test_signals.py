"""Signals while work runs beside the main thread; no Ray runs here."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from pipeline.training.signals import wait_for


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_asks_once_and_the_work_ends_by_itself(
    number: int, caplog, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However late the second signal is handled, it belongs to the same press.
    monkeypatch.setattr("pipeline.training.signals._SAME_PRESS_S", 3600.0)
    asked: list[str] = []
    stop = threading.Event()
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}

    def work() -> None:
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)  # to the process and again to its group
        assert stop.wait(60)

    def request(name: str) -> None:
        asked.append(name)
        stop.set()

    wait_for(work, request)
    assert asked == [signal.Signals(number).name]
    assert f"{asked[0]}: saving a checkpoint" in caplog.text
    assert {each: signal.getsignal(each) for each in before} == before


def test_a_second_press_of_ctrl_c_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.training.signals._SAME_PRESS_S", 0.0)
    never, first = threading.Event(), threading.Event()

    def work() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        assert first.wait(60)
        os.kill(os.getpid(), signal.SIGINT)
        never.wait(60)

    with pytest.raises(KeyboardInterrupt):
        wait_for(work, lambda name: first.set())
    never.set()
    for thread in threading.enumerate():
        if thread.name == "work":
            thread.join()


def test_an_error_of_the_work_is_raised_by_the_caller() -> None:
    def work() -> None:
        raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        wait_for(work, lambda name: None)


def test_outside_the_main_thread_the_work_simply_runs() -> None:
    done: list[bool] = []
    thread = threading.Thread(
        target=wait_for, args=(lambda: done.append(threading.current_thread() is thread), print)
    )
    thread.start()
    thread.join()
    assert done == [True]
