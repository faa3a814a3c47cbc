"""`make bench-data`: the data stages on hours of audio, against a plain loop and a DataLoader.

Every stage runs under Ray Data with two workers, then the very same units go through the same
functions in a single-process loop and in a torch DataLoader with two workers. Audio-hours per
core-hour are by CPU time of all processes, what Ray itself uses included, so that a busy machine
does not change them; wall ratios it does. Then: two workers against one, a run with nothing to do,
and memory at four times the corpus. `--without-ray` runs every stage in this process alone, which
tells what a clip costs, on a busy machine too.
"""

from __future__ import annotations

import argparse
import datetime
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from pipeline.acoustics.attributes import measure
from pipeline.audio.files import read_audio, resample, to_channels
from pipeline.clip_tables import ClipTables
from pipeline.cluster import ray_cluster
from pipeline.data import describe, encode, ingest, shard
from pipeline.data.prepare import PrepareSettings, prepare
from pipeline.data.starter.settings import StarterSettings
from pipeline.data.starter.write import write_corpus
from pipeline.data.units.stage import Resources, Unit, UnitOutput, run_stage
from pipeline.settings import Settings, load_settings
from pipeline.storage import Folder
from pipeline.threads import limit_loaded_blas
from tests.bench.__main__ import hardware
from tests.bench.corpora import write_long_recordings, write_short_clips
from tests.bench.memory import memory_lines
from tests.bench.processes import Watch, timed
from tests.factories.clips import write_codec

WORKERS = 2
UNIT_CLIPS = 24
"""Clips of a unit: small enough that the last units of a stage do not leave a worker idle long."""
SHORT_CLIP_UNITS = 256
CODEC_RATE = 16_000
_RECIPE = "jobs/configs/prepare_tiny_cpu.yaml"


class MeasureWorker:
    """Decode, resample and measure the clips of a part; what encoding does before the codec."""

    def __init__(self, clips: Folder) -> None:
        self._clips = ClipTables.of(clips)

    def process(self, unit: Unit) -> UnitOutput:
        """Nothing is kept but the count."""
        rows = self._clips.read(unit.name).to_pylist()
        for row in rows:
            audio = read_audio(row["uri"], row["start_s"], row["end_s"])
            measure(audio.waveform, audio.sample_rate, row["modality"])
            resample(to_channels(audio.waveform, 1), audio.sample_rate, CODEC_RATE)
        return UnitOutput({}, len(rows), len(rows))


@dataclass
class Run:
    """One stage as it was run: what to run again in other ways, and what it took.

    Attributes:
        stage: Name of the stage.
        units: Its units.
        worker: Class of its worker.
        worker_kwargs: How the worker is built.
        wall_s: Wall seconds, actors' start included.
        cpu_s: CPU seconds of all processes.
        steady_s: Wall seconds that all units would take at the rate after the first ones.
    """

    stage: str
    units: list[Unit]
    worker: type
    worker_kwargs: dict[str, Any]
    wall_s: float
    cpu_s: float
    steady_s: float


class Units(Dataset[int]):
    """The units of a stage, each done where it is fetched; the loader hands on counts."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._worker: Any = None

    def __len__(self) -> int:
        return len(self._run.units)

    def __getitem__(self, index: int) -> int:
        if self._worker is None:
            self._worker = self._run.worker(**self._run.worker_kwargs)
        return self._worker.process(self._run.units[index]).written


def main() -> None:
    """Measure and print a table, line by line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.stages", description=__doc__)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--input", nargs="+", metavar="DIR", help="corpora; default: made anew")
    source.add_argument("--short-clips", type=int, metavar="N", help="made anew: N of 1 to 3 s")
    parser.add_argument("--minutes", type=float, default=60.0, help="of starter corpus if made")
    parser.add_argument(
        "--long-recordings",
        type=int,
        metavar="N",
        help="join the clips of --input to N recordings, FLAC and MP3 in turn, and measure those",
    )
    parser.add_argument("--recording-hours", type=float, default=1.0, help="length of each")
    parser.add_argument(
        "--without-ray", action="store_true", help="CPU time of each stage in one process, no more"
    )
    parser.add_argument(
        "--memory",
        nargs="+",
        metavar="DIR",
        help="corpora of the memory runs; default: those measured, none for --short-clips",
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    root = Path(tempfile.mkdtemp(prefix="bench-data-"))
    try:
        inputs, unit_clips = options.input, UNIT_CLIPS
        if options.short_clips:
            inputs = [str(write_short_clips(root / "sound", options.short_clips))]
            unit_clips = max(UNIT_CLIPS, options.short_clips // SHORT_CLIP_UNITS)
        elif not inputs:
            inputs = [str(root / "corpus")]
            write_corpus(root / "corpus", StarterSettings(minutes=options.minutes), WORKERS)
        if options.long_recordings:
            folder = root / "long" / "sound"
            count, hours = options.long_recordings, options.recording_hours
            inputs = [str(write_long_recordings(folder, inputs, count, hours))]
        memory_inputs = options.memory or ([] if options.short_clips else inputs)
        print(f"{hardware()}; torch {torch.__version__}; {datetime.date.today().isoformat()}")
        print(f"command: python -m tests.bench.stages {' '.join(sys.argv[1:])}".rstrip())
        if options.without_ray:
            print("\n| stage | a clip | audio-hours per core-hour |\n|---|---|---|")
            for line in plain_lines(root, _settings(inputs, unit_clips, workers=0)):
                print(f"| {' | '.join(line)} |", flush=True)
            return
        print("\n| what | value | against | ratio |\n|---|---|---|---|")
        for line in lines(root, _settings(inputs, unit_clips, WORKERS), memory_inputs):
            print(f"| {' | '.join(line)} |", flush=True)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def lines(
    root: Path, settings: PrepareSettings, memory_inputs: list[str]
) -> Iterator[tuple[str, ...]]:
    """Rows of the table: what, value, against, ratio."""
    codec = write_codec(root / "codec")
    out = Folder.at(root / "out")
    with ray_cluster(num_cpus=WORKERS):
        runs = ray_runs(settings, out, codec)
        single = _measure_run(runs["encode"], out, Folder.at(root / "one"), workers=1)
    hours = sum(out.child("clips").card()["hours"]["by_modality"].values())
    for run in runs.values():
        yield from _comparison(run, hours)
    double = runs["measure"]
    gain = single.steady_s / double.steady_s
    yield (
        f"measure, {WORKERS} workers at full pace",
        f"{gain / WORKERS:.2f} of perfect scaling",
        "1 worker at full pace",
        f"{gain:.2f}",
    )
    started = time.perf_counter()
    prepare(settings, out, codec)
    again_s = time.perf_counter() - started
    work_s = sum(run.wall_s for name, run in runs.items() if name != "measure")
    yield (
        "prepare again with nothing to do: what a resumed run pays to find out",
        f"{again_s:.2f} s",
        f"the stages themselves, {work_s:.0f} s",
        f"{again_s / work_s:.3f}",
    )
    if memory_inputs:
        yield from memory_lines(root, memory_inputs, codec)


def ray_runs(settings: PrepareSettings, out: Folder, codec: str) -> dict[str, Run]:
    """All stages under Ray, in order, and decoding and measuring alone."""
    clips, latents, descriptions, shards = _places(out)
    runs: dict[str, Run] = {}
    with _recorded(runs):
        ingest.ingest(settings.ingest, clips)
        encode.encode(clips, latents, settings.encode, codec)
        describe.describe(clips, latents, descriptions, settings.describe)
        shard.shard(clips, latents, descriptions, shards, settings.shard)
    runs.pop("ingest")  # writes what is removed, in this process
    measured = _measure_run(runs["encode"], out, out.child("measured"), WORKERS)
    return {"scan": runs.pop("scan"), "measure": measured, **runs}


def plain_lines(root: Path, settings: PrepareSettings) -> Iterator[tuple[str, ...]]:
    """Rows of a table without Ray: stage, CPU time a clip, audio-hours per core-hour."""
    codec, out = write_codec(root / "codec"), Folder.at(root / "out")
    for stage, cpu_s in _plain_stages(settings, out, codec):
        clips = out.child("clips").card()
        hours = sum(clips["hours"]["by_modality"].values())
        what = f"{stage}, {clips['written']:,} clips, {hours:.2f} h"
        yield what, f"{cpu_s / clips['written'] * 1e3:.2f} ms", f"{hours / cpu_s * 3600:.0f}"


def _plain_stages(
    settings: PrepareSettings, out: Folder, codec: str
) -> Iterator[tuple[str, float]]:
    clips, latents, descriptions, shards = _places(out)
    yield "ingest", timed(lambda: ingest.ingest(settings.ingest, clips))[1]
    yield "encode", timed(lambda: encode.encode(clips, latents, settings.encode, codec))[1]
    texts, index = settings.describe, settings.shard
    yield "describe", timed(lambda: describe.describe(clips, latents, descriptions, texts))[1]
    yield "shard", timed(lambda: shard.shard(clips, latents, descriptions, shards, index))[1]


def _places(out: Folder) -> tuple[Folder, ...]:
    names = ("clips", "latents", "descriptions", "train-shards")
    return tuple(out.child(name) for name in names)


def _settings(inputs: list[str], unit_clips: int, workers: int) -> PrepareSettings:
    changes = [f"ingest.unit_clips={unit_clips}", "ingest.max_reject_share=1.0"]
    changes += [
        f"{stage}.resources.workers={workers}"
        for stage in ("ingest", "encode", "describe", "shard")
    ]
    changes += ["shard.parts_per_unit=4"]
    places = ",".join(f"'{Path(place).resolve()}'" for place in inputs)
    return load_settings(PrepareSettings, _RECIPE, [*changes, f"ingest.inputs=[{places}]"])


@contextmanager
def _recorded(runs: dict[str, Run]) -> Iterator[None]:
    """Every `run_stage` of the stages is timed and kept."""

    def record(folder: Folder, **given: Any) -> dict[str, Any]:
        started = time.perf_counter()
        with Watch() as watch:
            card = run_stage(folder, **given)
        runs[given["stage"]] = Run(
            given["stage"],
            list(given["units"]),
            given["worker"],
            given["worker_kwargs"],
            time.perf_counter() - started,
            watch.cpu_s,
            _steady_s(Path(folder.path), len(given["units"])),
        )
        return card

    modules = (ingest, encode, describe, shard)
    for module in modules:
        module.run_stage = record  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for module in modules:
            module.run_stage = run_stage  # type: ignore[attr-defined]


def _measure_run(encoded: Run, out: Folder, folder: Folder, workers: int) -> Run:
    runs: dict[str, Run] = {}
    with _recorded(runs):
        encode.run_stage(  # type: ignore[attr-defined]
            folder,
            stage="measure",
            settings=Settings(),
            inputs={},
            units=encoded.units,
            worker=MeasureWorker,
            worker_kwargs={"clips": out.child("clips")},
            resources=Resources(workers=workers),
            max_reject_share=1.0,
        )
    return runs["measure"]


def _steady_s(folder: Path, num_units: int) -> float:
    times = sorted(path.stat().st_mtime for path in (folder / "rejects").iterdir())
    first = min(WORKERS, len(times) - 2)  # each worker's first unit pays its imports
    rate = (len(times) - 1 - first) / max(times[-1] - times[first], 1e-9)
    return num_units / rate


def _comparison(run: Run, hours: float) -> Iterator[tuple[str, ...]]:
    worker = run.worker(**run.worker_kwargs)
    with limit_loaded_blas():  # as under Ray: threads that spin cost time and gain little
        plain_s, plain_cpu_s = timed(lambda: [worker.process(unit) for unit in run.units])
    loader = DataLoader(
        Units(run), batch_size=None, num_workers=WORKERS, multiprocessing_context="spawn"
    )
    loader_s, loader_cpu_s = timed(lambda: list(loader))
    ours = f"{hours / run.cpu_s * 3600:.0f} audio-hours per core-hour"
    for against, wall_s, cpu_s in (
        ("plain loop, one process", plain_s, plain_cpu_s),
        (f"DataLoader, {WORKERS} workers", loader_s, loader_cpu_s),
    ):
        yield (
            f"{run.stage}, Ray Data, {WORKERS} workers, {len(run.units)} units, {hours:.2f} h",
            f"{ours}; {run.wall_s:.1f} s, {run.steady_s:.1f} s at full pace",
            f"{against}: {hours / cpu_s * 3600:.0f} audio-hours per core-hour; {wall_s:.1f} s",
            f"{wall_s / run.wall_s:.2f} of wall time, {cpu_s / run.cpu_s:.2f} of CPU time",
        )


if __name__ == "__main__":
    main()
