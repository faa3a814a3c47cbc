"""The wheel in an empty environment: it holds the shipped model and speaks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
import torch

from pipeline.evaluation.intelligibility import Recogniser

ROOT = Path(__file__).parents[1]
BUILD = "from hatchling.build import build_wheel; print(build_wheel({folder!r}))"


def run(*command: str, cwd: Path = ROOT) -> str:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_a_wheel_in_an_empty_environment_says_seven(tmp_path: Path) -> None:
    name = run(sys.executable, "-c", BUILD.format(folder=str(tmp_path))).splitlines()[-1]
    run(sys.executable, "-m", "venv", str(tmp_path / "venv"))
    python = tmp_path / "venv/bin/python"
    uv = Path(sys.executable).with_name("uv")
    constraints = ("--constraint", str(ROOT / "requirements.lock"))
    run(str(uv), "pip", "install", "--python", str(python), *constraints, str(tmp_path / name))
    words = ("A woman says seven.", "--transcript", "seven", "-o", "seven.wav")
    run(str(python.with_name("audiocalm")), "generate", *words, cwd=tmp_path)
    audio, sample_rate = soundfile.read(tmp_path / "seven.wav", dtype="float32", always_2d=True)
    heard = Recogniser(single_digit=True).transcribe(torch.from_numpy(audio.T), sample_rate)
    assert heard == "seven"
