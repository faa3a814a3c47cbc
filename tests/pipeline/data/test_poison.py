"""A file that crashes or hangs the decoder is found, rejected, and does not loop."""

from __future__ import annotations

import ctypes
import faulthandler
import multiprocessing
import os
import signal
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import pipeline.data.scan
from pipeline.audio_io import open_audio
from pipeline.data.attempts import Attempts
from pipeline.data.checks import CheckSettings
from pipeline.data.commits import Commits
from pipeline.data.scan import ScanWorker, part_name
from pipeline.data.segments import SegmentSettings
from pipeline.data.stage import UnitRunner
from pipeline.storage import Folder, json_bytes
from tests.factories.corpora import write_tone

HANG_S = 4.0


def crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def hang() -> None:
    """C code that never returns and holds the interpreter's lock."""
    ctypes.PyDLL(None).sleep(3_600)


def work(out: Path, row: dict, deed) -> None:
    """One life of a worker process whose decoder does the deed at one file."""
    faulthandler.disable()  # or every death fills the log

    def open_poisoned(uri, *span):
        if "poison" in uri:
            deed()
        return open_audio(uri, *span)

    pipeline.data.scan.open_audio = open_poisoned
    folder = Folder.at(out)
    runner = UnitRunner(
        Commits(folder, "settings"),
        Attempts(folder, "run", max_attempts=3),
        "scan",
        ScanWorker,
        {"checks": CheckSettings(), "segments": SegmentSettings()},
        hang_timeout_s=HANG_S,
    )
    assert not runner(row)["deadly"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("deed", [crash, hang])
def test_the_third_life_of_the_worker_leaves_the_poison_out(tmp_path, deed):
    clips = []
    for seed, name in enumerate(("a", "poison", "z")):
        path = write_tone(tmp_path / f"{name}.wav", seed=seed)
        known = {"clip_id": f"c/{name}", "corpus": "c", "uri": str(path), "modality": "sound"}
        clips.append(known)
    payload = json_bytes({"clips": clips, "rejects": []}).decode()
    row = {"name": "00000", "digest": "d", "payload": payload}
    codes = []
    for _ in range(3):
        process = multiprocessing.get_context("fork").Process(
            target=work, args=(tmp_path / "out", row, deed)
        )
        process.start()
        process.join()
        codes.append(process.exitcode)
    assert codes[0] == codes[1] != 0
    assert codes[2] == 0
    rejects = pq.read_table(tmp_path / "out/rejects/part-00000.parquet").to_pylist()
    assert [(row["clip_id"], row["reason"]) for row in rejects] == [("c/poison", "worker_died")]
    kept = pq.read_table(tmp_path / "out" / part_name("00000")).to_pylist()
    assert [row["clip_id"] for row in kept] == ["c/a", "c/z"]
