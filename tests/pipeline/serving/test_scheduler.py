"""Slots, fairness, cancellation and reader lag, without threads or tensors."""

from __future__ import annotations

import pytest

from pipeline.serving.scheduler import FullError, Scheduler


def make(
    max_batch: int = 2, max_waiting: int = 2, max_buffered: int = 4, max_opened: int = 4
) -> Scheduler[str]:
    return Scheduler(max_batch, max_waiting, max_buffered, max_opened)


def test_slots_are_given_in_order_of_arrival() -> None:
    scheduler = make(max_batch=2, max_waiting=3)
    for ticket in "abcd":
        scheduler.submit(ticket)
    first = scheduler.plan()
    assert first.opened == first.stepped == ("a", "b")
    scheduler.produced("a", is_last=True)
    second = scheduler.plan()
    assert second.opened == ("c",)
    assert second.stepped == ("b", "c")
    scheduler.produced("b", is_last=True)
    assert scheduler.plan().opened == ("d",)


def test_every_running_request_advances_in_every_step() -> None:
    scheduler = make(max_batch=3, max_waiting=8, max_buffered=100)
    for ticket in "abcdef":
        scheduler.submit(ticket)
    steps = dict.fromkeys("abcdef", 0)
    for _ in range(20):
        for ticket in scheduler.plan().stepped:
            steps[ticket] += 1
            scheduler.produced(ticket, is_last=steps[ticket] == 5)
    assert set(steps.values()) == {5}
    assert scheduler.num_running == scheduler.num_waiting == 0


def test_a_request_joins_while_others_run() -> None:
    scheduler = make()
    scheduler.submit("a")
    scheduler.plan()
    scheduler.produced("a", is_last=False)
    scheduler.submit("b")
    plan = scheduler.plan()
    assert plan.opened == ("b",)
    assert plan.stepped == ("a", "b")


def test_full_is_refused_and_room_is_found_again() -> None:
    scheduler = make(max_batch=1, max_waiting=1)
    scheduler.submit("a")
    scheduler.submit("b")
    with pytest.raises(FullError, match="limits are 1 and 1"):
        scheduler.submit("c")
    scheduler.plan()
    with pytest.raises(FullError):
        scheduler.submit("c")
    scheduler.produced("a", is_last=True)
    scheduler.submit("c")
    assert scheduler.num_waiting == 2


def test_requests_without_memory_wait_at_the_head_until_one_has_left() -> None:
    scheduler = make(max_batch=4, max_waiting=4)
    for ticket in "abcd":
        scheduler.submit(ticket)
    assert scheduler.plan().opened == ("a", "b", "c", "d")
    scheduler.postpone(["c", "d"])
    assert (scheduler.num_running, scheduler.num_waiting) == (2, 2)
    scheduler.submit("e")
    plan = scheduler.plan()
    assert plan.opened == ()
    assert plan.stepped == ("a", "b")
    scheduler.produced("a", is_last=True)
    assert scheduler.plan().opened == ("c", "d", "e")


@pytest.mark.parametrize("leaves", ["cancelled", "failed", "cancelled while it waits"])
def test_the_queue_goes_on_when_a_request_leaves_in_any_way(leaves: str) -> None:
    scheduler = make(max_batch=3, max_buffered=1)
    for ticket in "abc":
        scheduler.submit(ticket)
    scheduler.plan()
    scheduler.postpone(["b", "c"])
    scheduler.produced("a", is_last=False)  # its reader lags, so nothing can be done
    assert not scheduler.has_step()
    if leaves == "failed":
        scheduler.failed("a")
    else:
        scheduler.cancel("a" if leaves == "cancelled" else "b")
    assert scheduler.has_step()
    assert scheduler.plan().opened[-1] == "c"


def test_a_request_postponed_alone_or_after_its_cancellation_holds_up_nobody() -> None:
    scheduler = make()
    scheduler.submit("a")
    scheduler.plan()
    scheduler.postpone(["a"])
    assert scheduler.plan().opened == ("a",)
    scheduler.cancel("a")
    scheduler.postpone(["a"])
    assert scheduler.num_waiting == 0
    assert scheduler.plan().closed == ("a",)


def test_memory_of_a_request_cancelled_during_an_opening_is_offered_to_the_queue() -> None:
    scheduler = make(max_batch=3, max_buffered=1)
    for ticket in "abc":
        scheduler.submit(ticket)
    scheduler.plan()
    scheduler.cancel("a")  # while c is opened
    scheduler.postpone(["c"])
    scheduler.produced("b", is_last=False)
    plan = scheduler.plan()
    assert (plan.closed, plan.opened) == (("a",), ("c",))


def short(max_buffered: int = 1) -> Scheduler[str]:
    """`a` is paused by its reader, `b` is short of memory, `c` waits for a slot."""
    scheduler = make(max_batch=3, max_buffered=max_buffered)
    scheduler.submit("a")
    scheduler.submit("b")
    scheduler.plan()
    for _ in range(max_buffered):
        scheduler.produced("a", is_last=False)
    scheduler.short_of_memory("b")
    scheduler.submit("c")
    return scheduler


def test_a_running_request_short_of_memory_gives_nothing_to_do_and_is_not_overtaken() -> None:
    scheduler = short()
    assert not scheduler.has_step()
    scheduler.taken("a")
    plan = scheduler.plan()
    assert (plan.opened, plan.stepped) == ((), ("a",))


@pytest.mark.parametrize("event", ["freed", "ended", "cancelled", "failed"])
def test_it_goes_on_before_the_queue_when_memory_is_freed(event: str) -> None:
    scheduler = short()
    if event == "freed":
        scheduler.memory_freed()
    elif event == "ended":
        scheduler.produced("a", is_last=True)
    elif event == "cancelled":
        scheduler.cancel("a")
    else:
        scheduler.failed("a")
    assert scheduler.has_step()
    plan = scheduler.plan()
    assert (plan.opened, plan.stepped) == ((), ("b",))
    scheduler.produced("b", is_last=False, has_chunk=False)
    assert scheduler.plan().opened == ("c",)


def test_memory_freed_by_a_cancellation_during_a_step_is_noticed() -> None:
    scheduler = make(max_buffered=1)
    scheduler.submit("a")
    scheduler.submit("b")
    scheduler.plan()
    scheduler.cancel("a")  # the step that runs has refused b already
    scheduler.short_of_memory("b")
    assert scheduler.has_step()
    plan = scheduler.plan()
    assert (plan.closed, plan.stepped) == (("a",), ("b",))


def test_one_short_of_memory_whose_reader_lags_or_who_leaves_holds_up_nobody() -> None:
    scheduler = make(max_batch=3, max_buffered=1)
    scheduler.submit("a")
    scheduler.submit("b")
    scheduler.plan()
    scheduler.produced("b", is_last=False)
    scheduler.short_of_memory("b")
    scheduler.submit("c")
    assert scheduler.plan().opened == ("c",)
    scheduler = short()
    scheduler.cancel("b")
    scheduler.short_of_memory("b")
    assert scheduler.plan().opened == ("c",)


def test_no_waiting_places_still_fill_every_slot() -> None:
    scheduler = make(max_batch=2, max_waiting=0)
    scheduler.submit("a")
    scheduler.submit("b")
    with pytest.raises(FullError):
        scheduler.submit("c")


def test_cancelling_a_running_request_frees_its_slot_for_the_next_plan() -> None:
    scheduler = make(max_batch=1)
    scheduler.submit("a")
    scheduler.submit("b")
    scheduler.plan()
    scheduler.cancel("a")
    assert not scheduler.produced("a", is_last=False)
    plan = scheduler.plan()
    assert plan.closed == ("a",)
    assert plan.opened == plan.stepped == ("b",)
    assert scheduler.plan().closed == ()


def test_cancelling_a_waiting_request_never_opens_it() -> None:
    scheduler = make(max_batch=1)
    scheduler.submit("a")
    scheduler.submit("b")
    scheduler.plan()
    scheduler.cancel("b")
    scheduler.produced("a", is_last=True)
    assert not scheduler.has_step()
    assert scheduler.plan().opened == ()


def test_a_lagging_reader_pauses_its_own_request_only() -> None:
    scheduler = make(max_batch=2, max_buffered=2)
    scheduler.submit("slow")
    scheduler.submit("fast")
    for _ in range(2):
        scheduler.plan()
        scheduler.produced("slow", is_last=False)
        scheduler.produced("fast", is_last=False)
        scheduler.taken("fast")
    assert scheduler.plan().stepped == ("fast",)
    scheduler.taken("slow")
    assert scheduler.plan().stepped == ("slow", "fast")


def test_nothing_to_do_when_all_are_paused() -> None:
    scheduler = make(max_batch=1, max_buffered=1)
    scheduler.submit("a")
    assert scheduler.has_step()
    scheduler.plan()
    scheduler.produced("a", is_last=False)
    assert not scheduler.has_step()
    scheduler.taken("a")
    assert scheduler.has_step()


def test_a_step_without_audio_is_no_lag() -> None:
    scheduler = make(max_buffered=1)
    scheduler.submit("a")
    scheduler.plan()
    scheduler.produced("a", is_last=False, has_chunk=False)
    assert scheduler.plan().stepped == ("a",)


def test_a_burst_is_opened_over_several_steps() -> None:
    scheduler = make(max_batch=8, max_waiting=0, max_opened=2)
    for ticket in "abcde":
        scheduler.submit(ticket)
    assert [scheduler.plan().opened for _ in range(3)] == [("a", "b"), ("c", "d"), ("e",)]


def test_a_failed_request_frees_its_slot() -> None:
    scheduler = make(max_batch=1)
    scheduler.submit("a")
    scheduler.submit("b")
    scheduler.plan()
    assert scheduler.failed("a")
    assert not scheduler.failed("a")
    assert scheduler.plan().opened == ("b",)


def test_a_ticket_is_submitted_once() -> None:
    scheduler = make()
    scheduler.submit("a")
    with pytest.raises(ValueError, match="submitted already"):
        scheduler.submit("a")


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_batch", 0), ("max_waiting", -1), ("max_buffered", 0), ("max_opened", 0)],
)
def test_limits_are_checked(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        make(**{name: value})
