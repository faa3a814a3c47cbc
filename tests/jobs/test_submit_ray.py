"""Jobs on a real job server: followed, left, attached to again, stopped, continued."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs import cli
from pipeline.settings import save_settings
from pipeline.submission.client import NAME, connect
from tests.factories.ray_nodes import ray_nodes
from tests.factories.train_shards import mixed_clips, write_shards
from tests.factories.training import small_settings

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1500)]

_SLOW_JOB = """
import signal, sys, time
from datetime import datetime

def log(text):
    print(f"{datetime.now():%H:%M:%S} INFO pipeline.training.loop: {text}", flush=True)

def stop(number, frame):
    time.sleep(5)  # longer than the 3 s that Ray gives by itself
    log("saved the checkpoint of step 7")
    sys.exit(0)

signal.signal(signal.SIGTERM, stop)
while True:
    log("step 7 of 100: loss 0.5000")
    time.sleep(0.2)
"""
"""A training without its arithmetic: it logs steps, and saves a checkpoint slowly on SIGTERM."""


@pytest.fixture
def address() -> Iterator[str]:
    """Address of the job server of a Ray head of its own."""
    with ray_nodes(num_cpus=3) as nodes:
        yield nodes.url


def leave_after_progress(cluster: list[str], job: str) -> None:
    """Follow a job in another process, and kill that once it has shown progress."""
    client = subprocess.Popen(
        [sys.executable, "-m", "jobs.cli", "status", job, "--follow", *cluster],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert client.stderr is not None
    seen = []
    for line in client.stderr:
        seen.append(line)
        if re.match(r"step \d+ of \d+, loss \d", line):
            break
    client.send_signal(signal.SIGKILL)
    client.communicate()
    assert client.returncode == -signal.SIGKILL, "".join(seen)


def test_a_job_is_left_attached_to_and_stopped_and_a_broken_one_says_why(
    address: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    cluster, script = ["--address", address], tmp_path / "job.py"
    script.write_text(_SLOW_JOB)
    connect(address).submit_job(
        entrypoint=f"exec python {script}",
        submission_id="slow-1",
        runtime_env={"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "900"}},
        metadata={NAME: "slow"},
    )
    leave_after_progress(cluster, "slow")
    assert cli.main(["status", "slow", *cluster]) == 0
    assert "slow: RUNNING" in capfd.readouterr().out
    assert cli.main(["stop", "slow", *cluster]) == 0
    assert "slow: STOPPED" in (out := capfd.readouterr().out)
    assert "last checkpoint at step 7" in out, "the job had the time for its checkpoint"
    assert cli.main(["status", "slow", "--follow", *cluster]) == 143
    words = [word for name in ("clips", "latents", "descriptions", "output")
             for word in (f"--{name}", str(tmp_path / name))]  # fmt: skip
    capfd.readouterr()
    assert cli.main(["submit", "shard", *words, *cluster, "--name", "broken"]) == 1
    captured = capfd.readouterr()
    assert "broken: FAILED" in captured.out
    assert f"error: {tmp_path}" in captured.err, "the error of the job is shown"
    assert cli.main(["list", *cluster]) == 0
    states = [line.split()[:2] for line in capfd.readouterr().out.splitlines()[-2:]]
    assert states == [["broken", "FAILED"], ["slow", "STOPPED"]]


@pytest.mark.nightly
def test_a_training_is_left_attached_to_stopped_and_continued(
    address: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shards, run, recipe = tmp_path / "shards", tmp_path / "run", tmp_path / "recipe.yaml"
    write_shards(shards, mixed_clips(12))
    settings = small_settings(optim={"num_steps": 10**6}, checkpoint={"every": 10**6}, log_every=50)
    recipe.write_text(save_settings(settings))
    words = ["train", "--shards", str(shards), "--output", str(run), "--config", str(recipe)]
    cluster = ["--address", address]
    assert cli.main(["submit", *words, *cluster, "--name", "mine", "--detach"]) == 0
    leave_after_progress(cluster, "mine")
    capfd.readouterr()
    assert cli.main(["stop", "mine", *cluster]) == 0
    stopped_at = int(re.findall(r"last checkpoint at step (\d+)", capfd.readouterr().out)[0])
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["state"], summary["step"]) == ("stopped", stopped_at)
    last = ["--set", f"optim.num_steps={stopped_at + 5}"]
    assert cli.main(["submit", *words, *last, *cluster, "--name", "mine", "--wait"]) == 0
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["state"], summary["step"]) == ("finished", stopped_at + 5)
    capfd.readouterr()
    assert cli.main(["doctor", "--storage", str(tmp_path), *cluster]) == 0
    found = capfd.readouterr().out.splitlines()
    assert [line.split()[0] for line in found] == ["ok", "ok"]
    assert "node (3 CPU, 0 GPU): storage" in found[1]
