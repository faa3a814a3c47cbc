"""Whisper is loaded from a folder or not at all, and every error says what to do."""

import pickle
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.evaluation.recogniser import Heard, RecogniserError, WhisperRecogniser


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("config.json", "model.bin", "tokenizer.json"):
        (tmp_path / name).write_bytes(b"{}")
    return tmp_path


def install(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> list[dict[str, Any]]:
    """A stand-in for faster-whisper that hears two words; returns what it is asked."""
    asked: list[dict[str, Any]] = []

    class WhisperModel:
        supported_languages = ("en",)

        def __init__(self, path: str, **options: Any) -> None:
            if error := changes.get("error"):
                raise error
            asked.append({"path": path, **options})

        def transcribe(self, audio: np.ndarray, **options: Any) -> tuple[list[Any], None]:
            asked.append({"samples": len(audio), "dtype": audio.dtype, **options})
            words = [
                SimpleNamespace(word=" Two", end=0.4),
                SimpleNamespace(word=" words.", end=0.9),
            ]
            return [SimpleNamespace(words=words)], None

    package = ModuleType("faster_whisper")
    package.WhisperModel = WhisperModel  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "faster_whisper", package)
    return asked


def test_words_and_their_ends_are_heard_without_sampling_or_download(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = install(monkeypatch)
    ear = WhisperRecogniser(folder)
    assert ear.hear(torch.ones(2, 8000), 8000, "en-us") == Heard("Two words.", (0.4, 0.9))
    assert asked[0]["local_files_only"] is True
    assert asked[1]["samples"] == 16_000
    assert asked[1]["dtype"] == np.float32
    assert (asked[1]["language"], asked[1]["temperature"]) == ("en", 0.0)
    assert ear.hear(torch.zeros(1, 8000), 8000, "en") == Heard("")  # silence is not guessed at


def test_the_version_is_of_the_weights_and_a_pickle_loads_them_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = install(monkeypatch)
    ear = WhisperRecogniser(folder, 2)
    again = pickle.loads(pickle.dumps(ear))
    assert (again.name, again.version) == (ear.name, ear.version)
    assert [options["cpu_threads"] for options in asked] == [2, 2]
    (folder / "model.bin").write_bytes(b"{ }")
    assert WhisperRecogniser(folder).version != ear.version


def test_what_the_folder_lacks_is_named(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    with pytest.raises(RecogniserError, match=r"has no tokenizer\.json; give the folder of"):
        WhisperRecogniser(folder)


@pytest.mark.parametrize("package", ["faster_whisper", "jiwer", "num2words"])
def test_the_extra_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    install(monkeypatch)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(RecogniserError, match=rf"need {package}: install the extra `eval`"):
        WhisperRecogniser(folder)


def test_a_model_that_cannot_be_read_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, error=RuntimeError("bad magic"))
    with pytest.raises(RecogniserError, match="holds no Whisper model: bad magic"):
        WhisperRecogniser(folder)
