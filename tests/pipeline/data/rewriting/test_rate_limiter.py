from __future__ import annotations

import pytest

from pipeline.data.rewriting.rate_limiter import RateLimiter


class Waits:
    def __init__(self) -> None:
        self.now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def leaving_times(count: int, tokens: float, **limits: float) -> list[float]:
    waits, times = Waits(), []
    limiter = RateLimiter(clock=lambda: waits.now, sleep=waits.sleep, **limits)
    for _ in range(count):
        limiter.wait(tokens)
        times.append(waits.now)
    return times


def test_requests_do_not_wait_without_limits():
    assert leaving_times(3, 1000) == [0, 0, 0]


def test_requests_are_evenly_spaced():
    assert leaving_times(3, 0, requests_per_minute=20) == [0, 3, 6]


def test_the_tighter_limit_applies():
    times = leaving_times(3, 100, requests_per_minute=60, tokens_per_minute=600)
    assert times == [0, 10, 20]
    times = leaving_times(3, 1, requests_per_minute=60, tokens_per_minute=600)
    assert times == [0, 1, 2]


def test_actual_tokens_correct_the_estimate():
    waits = Waits()
    limiter = RateLimiter(tokens_per_minute=60, clock=lambda: waits.now, sleep=waits.sleep)
    limiter.wait(10)
    limiter.correct(-8)
    limiter.wait(10)
    assert waits.now == pytest.approx(2)


def test_a_pause_delays_all_requests():
    waits = Waits()
    limiter = RateLimiter(clock=lambda: waits.now, sleep=waits.sleep)
    limiter.pause(5)
    limiter.wait(0)
    assert waits.now == 5
