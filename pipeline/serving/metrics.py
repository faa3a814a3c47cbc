"""Prometheus metrics of a replica, exported by Ray on every node."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing

from ray.serve import metrics

from pipeline.serving.answer import Ending, Item, Opening, Refusal

_FIRST_AUDIO_S = [0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0]
_REAL_TIME_FACTORS = [0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 5.0, 10.0]
_REFUSALS = {400: "invalid", 429: "full", 503: "unavailable"}
"""Outcome of a refused request by its status."""


class SamplerMetrics:
    """Slots, queue, audio made, outcomes and times; Serve labels them with the replica.

    Built inside a replica, where those labels are known.

    Args:
        clock: Monotonic clock, seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._running = metrics.Gauge(
            "audiocalm_active_slots", description="Requests that hold a slot of the replica."
        )
        self._waiting = metrics.Gauge(
            "audiocalm_queue_length", description="Requests in the replica that wait for a slot."
        )
        self._audio = metrics.Counter(
            "audiocalm_generated_audio_seconds", description="Audio handed out, seconds."
        )
        self._capped = metrics.Counter(
            "audiocalm_capped_total",
            description="Speech that reached its longest duration before the model ended it.",
        )
        self._requests = metrics.Counter(
            "audiocalm_requests",
            description="Requests that ended: complete, cancelled, failed, or refused as invalid, "
            "full or unavailable.",
            tag_keys=("outcome",),
        )
        self._first_audio = metrics.Histogram(
            "audiocalm_time_to_first_audio_seconds",
            description="From a request's arrival at the replica to its first chunk, seconds.",
            boundaries=_FIRST_AUDIO_S,
        )
        self._real_time_factor = metrics.Histogram(
            "audiocalm_real_time_factor",
            description="Time of a complete request in the replica, by the duration of its audio.",
            boundaries=_REAL_TIME_FACTORS,
        )

    async def watched(
        self,
        items: AsyncIterator[Item],
        stats: Callable[[], dict[str, int]],
    ) -> AsyncIterator[Item]:
        """Pass the items on and record metrics; leaving early closes the source.

        Args:
            items: Answer of the engine to one request.
            stats: Counts of the engine, with `running` and `waiting`.
        """
        arrived_at = self._clock()
        layout, audio_s, outcome = None, 0.0, "cancelled"
        try:
            async with aclosing(items):  # type: ignore[type-var]  # an async generator
                async for item in items:
                    if isinstance(item, Opening):
                        layout = item.layout
                        self._first_audio.observe(self._clock() - arrived_at)
                    elif isinstance(item, bytes) and layout is not None:
                        audio_s += layout.duration_s(len(item))
                        self._audio.inc(layout.duration_s(len(item)))
                    elif isinstance(item, Refusal):
                        outcome = _REFUSALS.get(item.status, "failed")
                    elif isinstance(item, Ending):
                        outcome = "complete"
                        self._note_end(item, self._clock() - arrived_at, audio_s)
                    self._note(stats())
                    yield item
        except Exception:  # raised again; a cancelled request is none
            outcome = "failed"
            raise
        finally:
            self._requests.inc(tags={"outcome": outcome})
            self._note(stats())

    def _note_end(self, ending: Ending, elapsed_s: float, audio_s: float) -> None:
        if ending.is_capped:
            self._capped.inc()
        if audio_s > 0:
            self._real_time_factor.observe(elapsed_s / audio_s)

    def _note(self, counts: dict[str, int]) -> None:
        self._running.set(counts["running"])
        self._waiting.set(counts["waiting"])
