"""Records wait for a service that is away; no caller does."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from pipeline.outbox import Outbox, RefusedRecordError

NEVER = 3600.0
"""A pause that ends with a flush alone."""


class Service:
    """Takes records in a list; `failures` are raised first, one a call."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.taken: list[str] = []
        self.attempted = threading.Event()

    def sending(self, name: str):
        def send() -> None:
            self.attempted.set()
            if self.failures:
                raise self.failures.pop(0)
            self.taken.append(name)

        return send


def test_records_arrive_in_order_without_the_caller_waiting() -> None:
    outbox, service, gate = Outbox("S"), Service(), threading.Event()

    def first() -> None:
        gate.wait()
        service.taken.append("a")

    outbox.post("a", first)
    outbox.post("b", service.sending("b"))
    assert service.taken == [], "the caller is back although the service has not answered"
    gate.set()
    assert outbox.flush(60) == 0
    assert service.taken == ["a", "b"]


def test_an_outage_is_one_warning_and_everything_arrives_after_it(caplog) -> None:
    caplog.set_level("INFO")
    outbox = Outbox("S", pause_s=0.0)
    service = Service(ConnectionError("away"), OSError("still away"))
    for name in "abc":
        outbox.post(name, service.sending(name))
    assert outbox.flush(60) == 0
    assert sorted(service.taken) == ["a", "b", "c"]
    assert caplog.text.count("did not take") == 1
    assert "S did not take a: away; records wait" in caplog.text
    assert "S answers again" in caplog.text
    assert not outbox.is_failing


def test_while_a_service_is_away_it_is_asked_once_and_then_left_alone() -> None:
    outbox, service = Outbox("S", pause_s=NEVER), Service(ConnectionError("away"))
    outbox.post("a", service.sending("a"))
    assert service.attempted.wait(60)
    outbox.post("b", service.sending("b"))
    assert service.taken == []
    assert outbox.flush(60) == 0, "the end of a run tries once more, whatever the pause"
    assert sorted(service.taken) == ["a", "b"]


def test_a_refused_record_is_dropped_and_named(caplog) -> None:
    outbox, service = Outbox("S"), Service(RefusedRecordError("no such run"))
    outbox.post("a", service.sending("a"))
    outbox.post("b", service.sending("b"))
    assert outbox.flush(60) == 0
    assert service.taken == ["b"]
    assert "S did not take a: no such run" in caplog.text


def test_a_record_that_always_fails_does_not_hold_up_the_others() -> None:
    outbox, service = Outbox("S", pause_s=0.0), Service()
    delivered, is_enough = threading.Event(), threading.Event()

    def poison() -> None:
        if is_enough.is_set():
            raise RefusedRecordError("let the outbox's thread end")
        raise ValueError("never")

    outbox.post("poison", poison)
    outbox.post("b", service.sending("b"))
    outbox.post("c", delivered.set)
    assert delivered.wait(60)
    assert service.taken == ["b"]
    assert outbox.flush(0.0) == 1, "the poisoned record is told to be undelivered"
    is_enough.set()
    assert outbox.flush(60) == 0


def test_only_so_many_records_wait_and_the_oldest_goes_first(caplog) -> None:
    outbox, service, gate = Outbox("S", most_records=2), Service(), threading.Event()
    is_sending = threading.Event()

    def first() -> None:
        is_sending.set()
        gate.wait()

    outbox.post("a", first)
    assert is_sending.wait(60)
    outbox.post("b", service.sending("b"))
    outbox.post("c", service.sending("c"))
    outbox.post("d", service.sending("d"))
    gate.set()
    assert outbox.flush(60) == 0
    assert service.taken == ["c", "d"]
    assert "b is lost" in caplog.text


def test_a_kept_file_outlives_its_original(tmp_path: Path) -> None:
    outbox = Outbox("S")
    copies = []
    for content in ("one", "two"):
        path = tmp_path / "x.txt"
        path.write_text(content)
        copies.append(Path(outbox.keep(path)))
        path.unlink()
    assert [copy.read_text() for copy in copies] == ["one", "two"]
    assert {copy.name for copy in copies} == {"x.txt"}
    with pytest.raises(FileNotFoundError):
        outbox.keep(tmp_path / "missing")


def test_a_mistake_of_this_program_is_logged_with_its_traceback(caplog) -> None:
    outbox, service = Outbox("S", pause_s=0.0), Service(TypeError("two"), OSError("away"))
    outbox.post("a", service.sending("a"))
    assert outbox.flush(60) == 0
    (mistake,) = (record for record in caplog.records if record.levelname == "WARNING")
    assert mistake.exc_info is not None
    assert mistake.exc_info[0] is TypeError
