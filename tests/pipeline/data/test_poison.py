"""A file that crashes or hangs the decoder is found, rejected, and does not loop."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pyarrow.parquet as pq
import pytest

from pipeline.clip_tables import part_name
from pipeline.storage import json_bytes
from tests.factories.corpora import write_tone

LIVES = """
import ctypes, json, os, signal, sys
import pandas  # pyarrow would import it in every life, which takes long on a busy machine
import pipeline.data.scan
from pipeline.audio.files import open_audio
from pipeline.data.units.attempts import Attempts
from pipeline.data.screening.checks import CheckSettings
from pipeline.data.units.commits import Commits
from pipeline.data.segments import SegmentSettings
from pipeline.data.units.runner import Job, UnitRunner
from pipeline.storage import Folder

def open_poisoned(uri, *span):
    if "crash" in uri:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "hang" in uri:
        ctypes.PyDLL(None).sleep(3600)  # holds the interpreter's lock, as C code may
    return open_audio(uri, *span)

pipeline.data.scan.open_audio = open_poisoned
folder, row = Folder.at(sys.argv[1]), json.load(sys.stdin)
made = {"checks": CheckSettings(), "segments": SegmentSettings()}
ends = []
while len(ends) < 9 and 0 not in ends:
    child = os.fork()
    if child == 0:
        attempts = Attempts(folder, "run", max_attempts=3)
        worker = pipeline.data.scan.ScanWorker
        runner = UnitRunner(Job("scan", Commits(folder, ""), attempts, worker, made, 6.0))
        os._exit(3 if runner(row)["deadly"] else 0)
    status = os.waitpid(child, 0)[1]
    ends.append(-os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))
print(json.dumps(ends))
"""
"""Lives of a worker whose decoder crashes at one file and hangs at another: the first death blames
nobody, and each file is blamed twice before it is left out."""


@pytest.mark.nightly
def test_the_sixth_life_of_the_worker_leaves_both_poisons_out(tmp_path):
    clips = []
    for seed, name in enumerate(("a", "crash", "m", "hang", "z")):
        path = write_tone(tmp_path / f"{name}.wav", seed=seed)
        known = {"clip_id": f"c/{name}", "corpus": "c", "uri": str(path), "modality": "sound"}
        clips.append(known)
    payload = json_bytes({"clips": clips, "rejects": []}).decode()
    row = json.dumps({"name": "00000000", "digest": "d", "payload": payload})
    out = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, "-c", LIVES, str(out)],
        input=row,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.getcwd()},
    )
    assert json.loads(done.stdout) == [-11, -11, -11, 1, 1, 0], done.stderr
    rejects = pq.read_table(out / "rejects/part-00000000.parquet").to_pylist()
    reasons = {row["clip_id"]: row["reason"] for row in rejects}
    assert reasons == {"c/crash": "worker_died", "c/hang": "worker_died"}
    kept = pq.read_table(out / part_name("00000000")).to_pylist()
    assert [row["clip_id"] for row in kept] == ["c/a", "c/m", "c/z"]
