"""`make bench-serving`: the endpoint behind Ray Serve under load, on loopback.

1, 8 and 32 clients send mixed requests for a while: a fifth of them leaves after the first audio, a
tenth reads slowly. Then clients without patience send ten times as much as has room. Every complete
answer is compared with the audio that the same request makes alone and offline; a wrong or short
one, a broken stream, a refusal that is no 429 with Retry-After, or a slot that stays taken ends the
run with exit code 1. The clients run beside the endpoint, on the same cores.

Then 1 and 8 clients ask for one sentence, here and of pocket-tts' own server (`pocket_tts.py`).
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import httpx
import numpy as np
import psutil
from ray import serve

from model.bundle import DEFAULT_BUNDLE
from pipeline.cluster import ray_cluster
from pipeline.serving.local import deployed
from pipeline.serving.offline import open_synthesizer
from pipeline.serving.replica import SAMPLER
from pipeline.serving.schemas import GenerationBody
from pipeline.serving.settings import ServeSettings
from pipeline.serving.worker import BundleWorker
from tests.bench.__main__ import hardware
from tests.bench.pocket_tts import HEADER, our_rows, pocket_rows, what_is_missing
from tests.factories.http import free_port
from tests.factories.load import Report, asks, load

_APP = "bench-serving"
_CLIENTS = (1, 8, 32)
_SPEAKING = (1, 8)
_SLOTS, _WAITING, _QUEUED = 8, 4, 4
_TOLERANCE = 100
"""Of 16-bit samples, 0.3 % of full scale. Sums of a batch differ in the last bits, and phases of
partials carry that on; the largest difference found was 13, 70 dB below the audio."""
_BODIES: tuple[dict[str, Any], ...] = (
    {"description": "Rain falls on a tin roof.", "seconds": 2, "seed": 1},
    {"description": "A bell rings.", "seconds": 5, "seed": 2},
    {"description": "A slow melody on a piano.", "modality": "music", "seconds": 8, "seed": 3},
    {"description": "A woman speaks.", "transcript": "One two three.", "seed": 4},
    {"description": "A man speaks.", "transcript": "The ferry leaves at seven.", "seed": 5},
)


def main() -> int:
    """Run the load and print a table for BENCHMARKS.md; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.serving", description=__doc__)
    parser.add_argument("--bundle", default=DEFAULT_BUNDLE, help="bundle to serve")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each number of clients")
    parser.add_argument("--overload", type=float, default=60.0, help="seconds of ten times as much")
    parser.add_argument("--pocket-tts", metavar="DIR", help="folder with pocket-tts")
    options = parser.parse_args()
    expected = _expected(options.bundle)
    settings = ServeSettings.model_validate(
        {
            "bundle": options.bundle,
            "port": free_port(),
            "max_queued_requests": _QUEUED,
            "batch": {"max_batch": _SLOTS, "max_waiting": _WAITING},
        }
    )
    with ray_cluster(num_cpus=os.cpu_count()), deployed(settings, _APP) as url:
        rate = httpx.get(f"{url}/v1/audio/voices", timeout=60).json()["sample_rate"]
        # Before the overload, whose requests wait in the queue for a while when all have left.
        speech = [*HEADER, *our_rows(url, rate, _SPEAKING, options.seconds)]
        is_right = partial(_is_right, expected)
        lines, faults = _measure(url, is_right, options.seconds, options.overload)
        lines += ["", *speech]
    if (reason := what_is_missing(options.pocket_tts)) is None:
        lines += pocket_rows(options.pocket_tts, _SPEAKING, options.seconds)
    else:
        lines.append(f"pocket-tts is left out: {reason}")
    # At the end: until here Ray Serve logs every request between them.
    print(f"\n{hardware()}; bundle {options.bundle}; {datetime.date.today().isoformat()}")
    print(f"command: python -m tests.bench.serving {' '.join(sys.argv[1:])}".rstrip())
    print("\n".join(lines))
    for fault in faults:
        print(f"FAULT {fault}")
    return 1 if faults else 0


def _measure(
    url: str, is_right: Callable[[Mapping[str, Any], bytes], bool], seconds: float, overload: float
) -> tuple[list[str], list[str]]:
    """Lines of the table, and faults."""
    faults: list[str] = []
    lines = [
        "| clients | requests | complete | 429 | audio s/s | RTF p50 | first audio p50, s | p95 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    capacity = _SLOTS + _WAITING + _QUEUED
    rounds = [(clients, seconds, True) for clients in _CLIENTS]
    memory = []
    for clients, limit_s, is_patient in (*rounds, (10 * capacity, overload, False)):
        report = asyncio.run(
            load(
                url,
                asks(_BODIES, seed=clients),
                clients,
                is_right=is_right,
                seconds=limit_s,
                waits_when_refused=is_patient,
            )
        )
        lines.append(_row(clients, report))
        faults += report.faults
        faults += _freed()
        memory.append(_replica_mb())
    lines += ["", f"memory of the replica, MB: {', '.join(f'{mb:.0f}' for mb in memory)}"]
    return lines, faults


def _row(clients: int, report: Report) -> str:
    complete = report.complete
    audio_s = sum(outcome.audio_s for outcome in complete)
    first = sorted(outcome.first_s for outcome in report.outcomes if outcome.first_s)
    factors = [outcome.total_s / outcome.audio_s for outcome in complete]
    p95 = first[min(len(first) - 1, round(0.95 * len(first)))] if first else float("nan")
    cells = (
        str(clients),
        str(len(report.outcomes)),
        str(len(complete)),
        str(report.statuses[429]),
        f"{audio_s / report.elapsed_s:.2f}",
        f"{statistics.median(factors):.2f}" if factors else "",
        f"{statistics.median(first):.2f}" if first else "",
        f"{p95:.2f}",
    )
    return f"| {' | '.join(cells)} |"


def _freed() -> list[str]:
    """A fault if a slot stays taken after every client is gone."""
    handle = serve.get_deployment_handle(SAMPLER, _APP).options(method_name="stats")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        counts = handle.remote().result(timeout_s=60)
        if not counts["running"] and not counts["waiting"]:
            return []
        time.sleep(0.2)
    return [f"slots stay taken a minute after the last client: {counts}"]


def _replica_mb() -> float:
    """Resident memory of the replica."""
    name = f"ServeReplica:{_APP}:{SAMPLER}"
    found = [
        process
        for process in psutil.process_iter(["cmdline", "memory_info"])
        if any(name in word for word in process.info["cmdline"] or [])
    ]
    return sum(process.info["memory_info"].rss for process in found) / 1e6


def _expected(bundle: str) -> dict[int, np.ndarray]:
    """Audio of each body by its seed, made alone and offline."""
    worker = BundleWorker(open_synthesizer(bundle, "cpu"))
    made = {}
    for fields in _BODIES:
        body = GenerationBody.model_validate(fields)
        handle, samples, is_last = worker.open(body.job(fields["seed"], "")), b"", False
        while not is_last:
            (step,) = worker.step([handle])
            samples, is_last = samples + step.samples, step.is_last
        made[fields["seed"]] = np.frombuffer(samples, "<i2").astype(np.int32)
    return made


def _is_right(expected: Mapping[int, np.ndarray], body: Mapping[str, Any], pcm: bytes) -> bool:
    heard = np.frombuffer(pcm, "<i2").astype(np.int32)
    alone = expected[body["seed"]]
    return heard.shape == alone.shape and int(np.abs(heard - alone).max()) <= _TOLERANCE


if __name__ == "__main__":
    sys.exit(main())
