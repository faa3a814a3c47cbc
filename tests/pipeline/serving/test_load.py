"""Many clients at once over a counting engine: nobody gets wrong audio, every slot is freed.

`make bench-serving` does the same with a real model behind Ray Serve.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping
from typing import Any

import pytest

from pipeline.serving.app import create_app
from pipeline.serving.settings import BatchSettings, ServeSettings
from tests.factories.engines import run, until
from tests.factories.http import served
from tests.factories.load import Ask, asks, load
from tests.factories.serving import LocalEngine, audio

BODIES = [
    {"description": "rain", "seconds": 3, "seed": 1},
    {"description": "a waltz", "modality": "music", "seconds": 40, "seed": 2},
    {"description": "a man for 12 steps", "transcript": "Good morning.", "seed": 3},
    {"description": "a woman for 1 steps", "transcript": "Yes.", "seed": 4},
]
STEPS = {1: 3, 2: 40, 3: 12, 4: 1}


def is_right(body: Mapping[str, Any], pcm: bytes) -> bool:
    return pcm == audio(body["seed"], STEPS[body["seed"]])


def is_free(engine: LocalEngine) -> bool:
    """Whether no request holds anything: each that ended, or was left, is closed once."""
    counts = engine.batch.stats()
    ended = counts["finished"] + counts["cancelled"]
    is_over = counts["running"] == counts["waiting"] == 0
    return is_over and len(engine.worker.closed) == ended


@pytest.mark.parametrize("num_clients", [1, 8, 32])
def test_mixed_clients_get_their_own_audio_whole_or_a_refusal(num_clients: int) -> None:
    engine = LocalEngine(BatchSettings(max_batch=4, max_waiting=2, max_buffered=4))
    source = itertools.islice(asks(BODIES, seed=num_clients), 60)

    async def body(url: str) -> None:
        report = await load(
            url,
            source,
            num_clients,
            is_right=is_right,
            slow_pause_s=0.001,
            waits_when_refused=False,
        )
        assert report.faults == []
        assert len(report.outcomes) == 60
        assert set(report.statuses) <= {200, 429}
        assert report.complete
        await until(lambda: is_free(engine))

    with engine, served(create_app(engine, ServeSettings())) as url:
        run(body(url))


def test_ten_times_what_fits_is_refused_and_the_rest_is_whole() -> None:
    settings = BatchSettings(max_batch=2, max_waiting=1)
    engine = LocalEngine(settings, is_manual=True)
    source = iter([Ask(BODIES[0])] * 30)

    async def body(url: str) -> None:
        loading = asyncio.create_task(
            load(url, source, 30, is_right=is_right, waits_when_refused=False)
        )
        await until(lambda: len(engine.jobs) == 30)
        engine.worker.free()
        report = await loading
        assert report.faults == []
        assert report.statuses == {200: 3, 429: 27}
        assert len(report.complete) == 3

    with engine, served(create_app(engine, ServeSettings())) as url:
        run(body(url))
        assert engine.batch.stats()["finished"] == 3
