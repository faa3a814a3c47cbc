"""Peak memory of `prepare` on a corpus and on four times as much, each in processes of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.bench.processes import Watch

TIMES = 4
_AIM = 1.15


def memory_lines(root: Path, inputs: list[str], codec: str) -> Iterator[tuple[str, ...]]:
    """Rows of the table: peak of the driver and of the largest worker, four times against once.

    The copies have other names and the same audio, and duplicates are kept.
    """
    peaks = {}
    for times in (1, TIMES):
        corpora = root / f"times-{times}"
        for copy in range(times):
            for place in inputs:
                shutil.copytree(place, corpora / f"{copy}-{Path(place).name}")
        peaks[times] = _peaks(corpora, root / f"memory-{times}", codec)
    for number, who in enumerate(("driver", "largest worker")):
        once, more = peaks[1][number], peaks[TIMES][number]
        verdict = "within the aim of" if more / once <= _AIM else "misses the aim of"
        yield (
            f"prepare, peak memory of the {who}, {TIMES} times the corpus",
            f"{more / 2**20:.0f} MiB, {verdict} {_AIM:g}",
            f"once: {once / 2**20:.0f} MiB",
            f"{more / once:.2f}",
        )


def _peaks(corpora: Path, output: Path, codec: str) -> tuple[int, int]:
    changes = [
        "ingest.refusals.keep_duplicates=true",
        "ingest.max_reject_share=1.0",
        "ingest.unit_clips=24",
        "encode.resources.window_s=60",
        "shard.parts_per_unit=4",
    ]
    command = [sys.executable, "-m", "jobs.prepare", f"--codec={codec}", f"--output={output}"]
    command += ["--input", *map(str, sorted(corpora.iterdir()))]
    command += [f"--set={change}" for change in changes]
    log = output.with_suffix(".log")
    with log.open("wb") as sink:
        job = subprocess.Popen(
            command, stdout=sink, stderr=sink, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )
        with Watch(job.pid) as watch:
            code = job.wait()
    if code:
        raise RuntimeError(f"prepare ended with {code}: {log.read_text(errors='replace')[-2000:]}")
    return watch.root_bytes, watch.worker_bytes
