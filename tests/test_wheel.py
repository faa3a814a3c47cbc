"""The wheel in an empty environment: it holds the shipped model and speaks."""

import os
import subprocess
import sys
import wave
from pathlib import Path

import pytest
from pocketsphinx import Decoder

ROOT = Path(__file__).parents[1]
BUILD = "from hatchling.build import build_wheel; print(build_wheel({folder!r}))"
DIGITS = "#JSGF V1.0; grammar digits; public <digits> = {words};"
WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


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
    decoder = Decoder(lm=None, loglevel="FATAL")
    decoder.add_jsgf_string("digits", DIGITS.format(words=" | ".join(WORDS)))
    decoder.activate_search("digits")
    with wave.open(str(tmp_path / "seven.wav")) as audio:
        assert audio.getframerate() == 16000
        decoder.start_utt()
        decoder.process_raw(audio.readframes(audio.getnframes()), full_utt=True)
        decoder.end_utt()
    assert decoder.hyp() is not None
    assert decoder.hyp().hypstr == "seven"
