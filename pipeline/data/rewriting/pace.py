"""When the next request may leave: so many requests and tokens a minute, evenly spaced."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Pace:
    """Spaces requests of many threads.

    Args:
        requests_per_minute: None does not limit.
        tokens_per_minute: None does not limit.
        clock: Seconds that only rise.
        sleep: Waits so many seconds.
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
        """Wait for the turn of a request that is expected to cost so many tokens."""
        with self._lock:
            start = max(self._clock(), self._free_at)
            self._free_at = start + max(self._request_s, tokens * self._token_s)
        while (left_s := start - self._clock()) > 0:
            self._sleep(left_s)

    def correct(self, tokens: float) -> None:
        """A request cost so many tokens more, or fewer where negative, than was expected."""
        with self._lock:
            self._free_at += tokens * self._token_s

    def pause(self, seconds: float) -> None:
        """Let no request leave for a while: the endpoint asked for it."""
        with self._lock:
            self._free_at = max(self._free_at, self._clock() + seconds)
