"""`prepare` undisturbed and under kills, and the comparison of every byte that they left."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import soundfile

from tests.chaos.kills import RUN_TIMEOUT_S, Kill, num_units, plan_kills, strike
from tests.factories.clips import RATE, noise, tone, voice, write_codec

STAGES = ("ingest", "encode", "describe", "shard")
MAX_RUNS = 8
"""Starts of the command before a seed counts as never complete."""


@dataclass
class Outcome:
    """What became of one seed.

    Attributes:
        kills: Those that struck.
        missed: Those that came too late: the job was done.
        num_runs: Starts of the command.
        failures: Last lines of starts that ended by themselves without success.
        differences: Files and folders that are not as in the undisturbed run.
        seconds: Wall time.
    """

    kills: list[Kill] = field(default_factory=list)
    missed: list[Kill] = field(default_factory=list)
    num_runs: int = 0
    failures: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def __str__(self) -> str:
        verdict = f"{len(self.differences)} differ" if self.differences else "every byte the same"
        missed = f", {len(self.missed)} too late" if self.missed else ""
        failed = f", {len(self.failures)} failed by themselves" if self.failures else ""
        kills = ", ".join(map(str, self.kills))
        return f"{kills}{missed}; {self.num_runs} runs{failed}, {self.seconds:.0f} s: {verdict}"


def write_corpora(folder: Path, num_clips: int) -> Path:
    """Clips of all modalities, and some that are refused: short, silent, broken, twice the same."""
    makers = (
        ("speech/talk", lambda i: voice(0.6 + 0.05 * (i % 9), 100 + 3 * i, seed=i)),
        ("sound/noises", lambda i: noise(0.5 + 0.07 * (i % 7), i)),
        ("music/tones", lambda i: tone(0.8 + 0.05 * (i % 5), 200 + 10 * i)),
    )
    for number in range(num_clips):
        place, make = makers[number % len(makers)]
        path = folder / place / f"{number:04d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        wave = make(number)
        if number % 11 == 10:
            wave = np.zeros(20 if number % 2 else RATE, np.float32)
        soundfile.write(path, wave, RATE, subtype="PCM_16")
        if place == "speech/talk":
            path.with_suffix(".txt").write_text(f"this is number {number}\n")
    (folder / "sound/noises/broken.wav").write_bytes(b"RIFF no sound at all")
    (folder / "sound/noises/copy.wav").write_bytes((folder / "sound/noises/0001.wav").read_bytes())
    return folder


@dataclass(frozen=True)
class Arena:
    """Where runs take place: a corpus, a codec, and the bytes that an undisturbed run leaves.

    Attributes:
        root: Folder of everything.
        expected: Digest by relative name; None is a folder.
        address: Ray instance of this process that all jobs connect to, as on a cluster; None lets
            every job start its own, which ends with it, as on a laptop.
    """

    root: Path
    expected: dict[str, str | None]
    address: str | None = None

    @classmethod
    def build(cls, root: Path, num_clips: int, address: str | None = None) -> Arena:
        """Write corpus and codec, and prepare them in one process without Ray."""
        write_corpora(root / "corpora", num_clips)
        write_codec(root / "codec")
        done = subprocess.run(
            _command(root, root / "undisturbed", workers=0),
            env=_environment(root, None),
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"the undisturbed run ended with {done.returncode}")
        return cls(root, digests(root / "undisturbed"), address)

    def run(self, seed: int) -> Outcome:
        """Prepare under the kills of a seed, again until it is complete, and compare."""
        output = self.root / f"seed-{seed}"
        waiting = plan_kills(seed, num_units(self.root / "undisturbed"))
        outcome = Outcome()
        started = time.monotonic()
        is_complete = False
        while not is_complete and outcome.num_runs < MAX_RUNS:
            outcome.num_runs += 1
            log = self.root / f"{output.name}-run-{outcome.num_runs}.log"
            with self._job(output, log) as job:
                is_driver_killed = self._strike_all(waiting, outcome, job, output)
                try:
                    is_complete = job.wait(RUN_TIMEOUT_S) == 0
                except subprocess.TimeoutExpired:
                    outcome.failures.append(f"hung for {RUN_TIMEOUT_S:.0f} s")
                    continue
            if not is_complete and not is_driver_killed:
                outcome.failures.append(log.read_text(errors="replace")[-2000:])
        outcome.missed = waiting
        outcome.seconds = time.monotonic() - started
        if not is_complete:
            outcome.differences.append(f"not complete after {outcome.num_runs} runs")
        outcome.differences += differences(self.expected, digests(output))
        return outcome

    def _strike_all(
        self, waiting: list[Kill], outcome: Outcome, job: subprocess.Popen[bytes], output: Path
    ) -> bool:
        """Strike what is waiting; True once the driver itself is dead."""
        ray_root = os.getpid() if self.address else job.pid
        while waiting and strike(waiting[0], job, ray_root, lambda: num_units(output)):
            outcome.kills.append(waiting.pop(0))
            if outcome.kills[-1].victim == "driver":
                return True
        return False

    @contextmanager
    def _job(self, output: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
        """The command under way; on leaving it has ended, by itself, by a kill or by us."""
        with log.open("wb") as sink:
            job = subprocess.Popen(
                _command(self.root, output, workers=2),
                env=_environment(self.root, self.address),
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                yield job
            finally:
                # What a killed driver leaves running goes by itself, a little later, and the next
                # run must stand that. A hung job is ended here.
                if job.poll() is None:
                    _end_session(job.pid)
                    job.wait()


def digests(folder: Path) -> dict[str, str | None]:
    """SHA-256 of every file below a folder and None for every folder, by relative name."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else None
        for path in sorted(folder.rglob("*"))
    }


def differences(expected: dict[str, str | None], found: dict[str, str | None]) -> list[str]:
    """Names that are missing, extra or of other bytes."""
    lines = []
    for name in sorted(expected.keys() | found.keys()):
        if name not in found:
            lines.append(f"missing: {name}")
        elif name not in expected:
            lines.append(f"extra: {name}")
        elif expected[name] != found[name]:
            lines.append(f"other bytes: {name}")
    return lines


def _end_session(session: int) -> None:
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session:
                process.send_signal(signal.SIGKILL)
        except (psutil.NoSuchProcess, ProcessLookupError, PermissionError):
            continue


def _command(root: Path, output: Path, workers: int) -> list[str]:
    sizes = ["ingest.unit_clips=4", "shard.parts_per_unit=2"]
    sizes += [f"{stage}.resources.workers={workers}" for stage in STAGES]
    places = {"input": root / "corpora", "codec": root / "codec", "output": output}
    options = [f"--{name}={place}" for name, place in places.items()]
    return [sys.executable, "-m", "jobs.prepare", *options, *(f"--set={size}" for size in sizes)]


def _environment(root: Path, address: str | None) -> dict[str, str]:
    ray = Path(tempfile.gettempdir()) / f"chaos-{root.name}"  # paths of sockets must be short
    # On a busy machine workers that yield to everything else would not get far.
    faster = {"OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0"}
    environment = os.environ | faster | {"RAY_TMPDIR": str(ray)}
    environment.pop("RAY_ADDRESS", None)
    return environment | ({"RAY_ADDRESS": address} if address else {})
