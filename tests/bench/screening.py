"""`python -m tests.bench.screening`: deduplication of synthetic clips in one driver, by number.

It prints time, memory and scratch disk a clip, and what 60 million clips would take at the rate of
the largest number. Clips have random fingerprints, and every hundredth repeats another one.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.clip_tables import ClipTables, part_name
from pipeline.data.schema import CLIPS
from pipeline.data.screening import refusals
from pipeline.data.screening.duplicates import MAX_PARTITIONS, Recordings
from pipeline.data.screening.fingerprints import MAX_WORDS
from pipeline.data.screening.refusals import RefusalSettings, find_removals
from pipeline.storage import Folder, table_bytes
from tests.bench.__main__ import hardware

UNIT_CLIPS = 2_048
REPEATED = 100
"""One clip in so many has the fingerprint of another one."""
LARGE = 60_000_000
"""Clips of 100,000 hours, of 6 s each."""


def main() -> None:
    """Measure each number of clips in a process of its own."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.screening", description=__doc__)
    parser.add_argument("--clips", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument(
        "--partitions",
        type=int,
        metavar="N",
        help=f"divide the fingerprints into N partitions; {LARGE:,} clips have {MAX_PARTITIONS}",
    )
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.partitions:
        partition_clips = -(-options.clips[0] // options.partitions)
        refusals.Recordings = partial(Recordings, partition_clips=partition_clips)  # type: ignore[misc, assignment]
    if options.one:
        print(measured(Folder.at(options.one), options.clips[0]))
        return
    print(
        hardware(), "\n\n| clips | against reading alone | µs a clip | peak MiB | 60 million, h |"
    )
    print("|---|---|---|---|---|")
    for num_clips in options.clips:
        root = Path(tempfile.mkdtemp(prefix="bench-screening-"))
        try:
            write_scan(Folder.at(root), num_clips)
            command = [sys.executable, "-m", "tests.bench.screening", f"--one={root}"]
            command += ["--clips", str(num_clips)]
            command += ["--partitions", str(options.partitions)] if options.partitions else []
            subprocess.run(command, check=True)
        finally:
            shutil.rmtree(root, ignore_errors=True)


def measured(scan: Folder, num_clips: int) -> str:
    """One line of the table: CPU time of screening, and memory of the process."""
    units = list(_units(num_clips))
    tables = ClipTables(scan)
    started = time.process_time()
    for unit in units:
        tables.read(unit).to_pylist()
    read_s = time.process_time() - started
    started = time.process_time()
    removals = find_removals(scan, units, [], RefusalSettings())
    took_s = time.process_time() - started
    num_removed = sum(len(of_unit) for of_unit in removals.values())
    num_expected = num_clips // REPEATED
    assert num_removed == num_expected, f"{num_removed} of {num_expected} duplicates found"
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    hours = took_s / num_clips * LARGE / 3600
    cells = [f"{num_clips:,}", f"{took_s / read_s:.1f}", f"{took_s / num_clips * 1e6:.0f}"]
    return f"| {' | '.join([*cells, f'{peak_mib:.0f}', f'{hours:.1f}'])} |"


def write_scan(scan: Folder, num_clips: int) -> None:
    """Parts of a scan as decoding would have left them."""
    rng = np.random.default_rng(0)
    first = 0
    for unit in _units(num_clips):
        count = min(UNIT_CLIPS, num_clips - first)
        words = rng.integers(1, 2**32, (count, MAX_WORDS), dtype=np.uint32)
        seconds = rng.uniform(2, 30, count)
        repeated = np.flatnonzero(np.arange(first, first + count) % REPEATED == REPEATED - 1)
        words[repeated], seconds[repeated] = words[repeated - 1], seconds[repeated - 1]
        ids = [f"made/{number:09d}" for number in range(first, first + count)]
        digests = [bytes(row).hex() for row in rng.integers(0, 256, (count, 32), dtype=np.uint8)]
        known = {
            "clip_id": ids,
            "corpus": ["made"] * count,
            "uri": ids,
            "modality": ["sound"] * count,
            "captions": [[]] * count,
            "tags": [[]] * count,
            "sample_rate": [16_000] * count,
            "num_channels": [1] * count,
            "duration_s": seconds,
            "content_sha256": digests,
            "fingerprint": digests,
            "acoustic": [row.astype("<u4").tobytes() for row in words],
        }
        columns = [pa.array(known.get(n, [None] * count), CLIPS.field(n).type) for n in CLIPS.names]
        scan.write_bytes(part_name(unit), table_bytes(pa.table(columns, schema=CLIPS)))
        first += count


def _units(num_clips: int) -> Iterator[str]:
    return (f"{number:08d}" for number in range(-(-num_clips // UNIT_CLIPS)))


if __name__ == "__main__":
    main()
