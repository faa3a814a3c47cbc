"""Figures of a replica for Ray's metrics, which a Prometheus scrapes from every node."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing

from ray.serve import metrics

from pipeline.serving.answer import Ending, Item, Opening

_FIRST_AUDIO_S = [0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0]


class SamplerMetrics:
    """Slots, queue, audio made and time to first audio; Serve labels them with the replica.

    Built inside a replica, where those labels are known.

    Args:
        clock: Seconds that only grow.
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
        self._first_audio = metrics.Histogram(
            "audiocalm_time_to_first_audio_seconds",
            description="From a request's arrival at the replica to its first chunk, seconds.",
            boundaries=_FIRST_AUDIO_S,
        )

    async def watched(
        self,
        items: AsyncIterator[Item],
        stats: Callable[[], dict[str, int]],
    ) -> AsyncIterator[Item]:
        """The same items, counted on their way; leaving early closes their source.

        Args:
            items: Answer of the engine to one request.
            stats: Counts of the engine, with `running` and `waiting`.
        """
        arrived_at = self._clock()
        layout = None
        try:
            async with aclosing(items):  # type: ignore[type-var]  # an async generator
                async for item in items:
                    if isinstance(item, Opening):
                        layout = item.layout
                        self._first_audio.observe(self._clock() - arrived_at)
                    elif isinstance(item, bytes) and layout is not None:
                        self._audio.inc(layout.duration_s(len(item)))
                    elif isinstance(item, Ending) and item.is_capped:
                        self._capped.inc()
                    self._note(stats())
                    yield item
        finally:
            self._note(stats())

    def _note(self, counts: dict[str, int]) -> None:
        self._running.set(counts["running"])
        self._waiting.set(counts["waiting"])
