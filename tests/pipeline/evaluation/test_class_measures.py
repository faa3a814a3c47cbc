"""Classifiers are trained on real training clips alone; tempo and key are those asked for."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from pipeline.evaluation import class_measures
from pipeline.evaluation.class_measures import (
    Teaching,
    measure_families,
    measure_sound_classes,
    measure_tempo_and_key,
    sound_class,
)
from pipeline.evaluation.held_out import HeldOutClip
from pipeline.evaluation.listening import Listening

RATE = 16_000
CODEC: Any = SimpleNamespace(timebase=SimpleNamespace(sample_rate=RATE), num_channels=1)


def tone(kind: str, seed: int) -> Tensor:
    noise = torch.randn(RATE // 4, generator=torch.Generator().manual_seed(seed))
    pitch_hz = {"hum": 200, "beep": 3000}[kind] * (1 + 0.01 * seed)
    phase = 2 * torch.pi * pitch_hz * torch.arange(RATE // 4) / RATE
    return (0.1 * torch.sin(phase) + 0.01 * noise)[None]


def clips(folder: Path, counts: dict[str, int], modality: str = "sound") -> list[HeldOutClip]:
    """Clips of two kinds in the splits, on disk."""
    found = []
    for split, count in counts.items():
        for index in range(count):
            kind = ("hum", "beep")[index % 2]
            path = folder / f"{split}-{index}.wav"
            soundfile.write(path, tone(kind, index)[0].numpy(), RATE)
            found.append(
                HeldOutClip(
                    clip_id=path.stem, uri=str(path), start_s=None, end_s=None, duration_s=0.25,
                    modality=modality, language=None, split=split, transcript=None, corpus="esc",
                    description={"hum": "an organ", "beep": "a flute"}[kind], tags=(kind,),
                )
            )  # fmt: skip
    return found


def listen(pool: list[HeldOutClip], *, swapped: bool = False) -> list[Listening]:
    """Measured clips; what the model made is of the other kind if swapped."""
    found = []
    for seed, clip in enumerate(c for c in pool if c.split == "test"):
        kind = clip.tags[0]
        made = {"hum": "beep", "beep": "hum"}[kind] if swapped else kind
        real = tone(kind, seed)
        found.append(Listening(clip, real, real, tone(made, 20 + seed), 1.0))
    return found


@pytest.mark.parametrize(("swapped", "accuracy"), [(False, 1.0), (True, 0.0)])
def test_accuracy_stands_beside_that_on_real_clips(
    tmp_path: Path, swapped: bool, accuracy: float
) -> None:
    pool = clips(tmp_path, {"train": 8, "validation": 2, "test": 4})
    found = measure_sound_classes(listen(pool, swapped=swapped), Teaching(pool, CODEC, 100))
    (measure,) = found.measures
    assert measure["name"] == "sound class, esc"
    assert measure["generated"]["value"] == accuracy
    assert measure["real"]["value"] == measure["reconstructed"]["value"] == 1.0
    assert measure["classifier_on_held_out"]["n"] == 6
    assert measure["classifier_on_held_out"]["value"] == 1.0
    assert measure["chance"] == 0.5
    assert "8 real clips of the training split" in measure["note"]


def test_no_measured_or_held_out_clip_is_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = clips(tmp_path, {"train": 12, "validation": 2, "test": 2})
    measured = [Listening(c, tone("hum", 0), tone("hum", 0), None, 1.0) for c in pool[:2]]
    loaded: list[str] = []
    trained: list[list[str]] = []
    original = class_measures.load_clip
    monkeypatch.setattr(
        class_measures,
        "load_clip",
        lambda c, codec: (loaded.append(c.clip_id), original(c, codec))[1],
    )

    class Spy(class_measures.Classifier):
        def __init__(self, features: Any, labels: Any) -> None:
            trained.append(list(loaded))
            super().__init__(features, labels)

    monkeypatch.setattr(class_measures, "Classifier", Spy)
    measure_sound_classes(measured, Teaching(pool, CODEC, 100))
    assert set(trained[0]) == {f"train-{index}" for index in range(2, 12)}


def test_families_are_those_of_the_descriptions(tmp_path: Path) -> None:
    pool = clips(tmp_path, {"train": 8, "test": 2}, modality="music")
    found = measure_families(listen(pool), Teaching(pool, CODEC, 100))
    assert found.measures[0]["name"] == "instrument family"
    assert found.measures[0]["generated"] == {
        "value": 1.0, "low": pytest.approx(0.158, abs=1e-3), "high": 1.0, "n": 2,
    }  # fmt: skip


def test_what_is_missing_is_a_reason(tmp_path: Path) -> None:
    pool = clips(tmp_path, {"train": 4, "test": 2})
    teaching = Teaching(pool, CODEC, 100)
    few = measure_sound_classes(listen(pool), teaching)
    assert "0 classes have enough clips" in few.skipped["sound class, esc"]
    assert "no clip of sound" in measure_sound_classes([], teaching).skipped["sound class"]
    assert "no clip of music" in measure_families([], teaching).skipped["instrument family"]
    assert set(measure_tempo_and_key([], RATE).skipped) == {"tempo within 5 %", "key"}


def test_a_class_is_the_only_tag() -> None:
    base = {"clip_id": "a", "uri": "", "start_s": None, "end_s": None, "duration_s": 1.0,
            "modality": "sound", "language": None, "split": "test", "description": "",
            "transcript": None}  # fmt: skip
    assert sound_class(HeldOutClip(**base, tags=("Church_Bells",))) == "church bells"
    assert sound_class(HeldOutClip(**base, tags=("rain", "dog"))) is None
    assert sound_class(HeldOutClip(**base)) is None


def piece(bpm: float, root_hz: float) -> Tensor:
    """Twelve seconds of a major cadence in plucked chords on every beat."""
    time_s = np.arange(12 * RATE) / RATE
    wave = np.zeros_like(time_s)
    for beat, start_s in enumerate(np.arange(0, 11.5, 60 / bpm)):
        since = np.clip(time_s - start_s, 0, None)
        root = root_hz * 2 ** ((0, 5, 7, 0)[beat % 4] / 12)
        for semitone in (0, 4, 7):
            sound = np.sin(2 * np.pi * root * 2 ** (semitone / 12) * since) * np.exp(-8 * since)
            wave += np.where(time_s >= start_s, sound, 0)
    return torch.tensor(0.1 * wave, dtype=torch.float32)[None]


def test_tempo_and_key_are_those_asked_for() -> None:
    clip = HeldOutClip(
        clip_id="a", uri="", start_s=None, end_s=None, duration_s=12.0, modality="music",
        language=None, split="test", description="Folk in C major at 120 BPM.", transcript=None,
    )  # fmt: skip
    right, wrong = piece(120, 261.63), piece(100, 277.18)
    found = measure_tempo_and_key([Listening(clip, right, right, wrong, 1.0)], RATE)
    values = {m["name"]: (m["real"]["value"], m["generated"]["value"]) for m in found.measures}
    assert values == {
        "tempo within 5 %": (1.0, 0.0),
        "tempo within 5 %, half or double allowed": (1.0, 0.0),
        "key": (1.0, 0.0),
    }
    silent = measure_tempo_and_key([Listening(clip, right, right, None, 1.0)], RATE)
    assert {m["generated"]["value"] for m in silent.measures} == {0.0}
