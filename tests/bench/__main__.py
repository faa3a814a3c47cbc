"""`make bench`: measures the rooms and prints tables for BENCHMARKS.md.

Every figure is a ratio against a named alternative that runs in turn with it, A B A B, so that a
drifting machine touches both; absolute times of a shared machine say little.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import importlib
import os
import platform
import sys

import torch

from tests.bench.measure import Row

ROOMS = ("model", "training", "codec", "data", "describe")


def main() -> None:
    """Run the benchmarks of the rooms asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("rooms", nargs="*", metavar="room", help=f"of {', '.join(ROOMS)}; all")
    parser.add_argument("--repeats", type=int, default=5, help="pairs of runs; medians are shown")
    parser.add_argument("--presets", nargs="+", help="of the model; tiny, or 0.6b on a GPU")
    options = parser.parse_args()
    unknown = set(options.rooms) - set(ROOMS)
    if unknown:
        parser.error(f"no room {', '.join(sorted(unknown))}; there are {', '.join(ROOMS)}")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    print(f"{hardware()}; torch {torch.__version__}; {datetime.date.today().isoformat()}")
    print(f"command: python -m tests.bench {' '.join(sys.argv[1:])}".rstrip())
    for room in options.rooms or ROOMS:
        module = importlib.import_module(f"tests.bench.{room}")
        print(f"\n### {room}\n\n{Row.header()}")
        rows = functools.partial(module.rows, options.repeats)
        if room == "model":
            rows = functools.partial(rows, options.presets)
        for row in rows():
            print(row, flush=True)


def hardware() -> str:
    """The machine in words."""
    name = platform.processor() or platform.machine()
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    cpu = f"{names[0] if names else name}, {os.cpu_count()} cores"
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}; {cpu}"
    return f"{cpu}, {torch.get_num_threads()} thread"


if __name__ == "__main__":
    main()
