"""A rate limiter for requests and tokens per minute."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class RateLimiter:
    """Spaces the requests of several threads evenly.

    Args:
        requests_per_minute: Limit of requests; None has no limit.
        tokens_per_minute: Limit of tokens; None has no limit.
        clock: Monotonic time, seconds.
        sleep: Function that waits for a number of seconds.
    """

    def __init__(
        self,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._request_s = 60 / requests_per_minute if requests_per_minute else 0.0
        self._token_s = 60 / tokens_per_minute if tokens_per_minute else 0.0
        self._clock, self._sleep = clock, sleep
        self._lock = threading.Lock()
        self._free_at = clock()

    def wait(self, tokens: float) -> None:
        """Wait until a request that is expected to use a number of tokens may be sent."""
        with self._lock:
            start = max(self._clock(), self._free_at)
            self._free_at = start + max(self._request_s, tokens * self._token_s)
        while (left_s := start - self._clock()) > 0:
            self._sleep(left_s)

    def correct(self, tokens: float) -> None:
        """Account for the tokens that a request used beyond its estimate; negative if fewer."""
        with self._lock:
            self._free_at += tokens * self._token_s

    def pause(self, seconds: float) -> None:
        """Send no request for some seconds, as an endpoint may request."""
        with self._lock:
            self._free_at = max(self._free_at, self._clock() + seconds)
