"""Classifiers are trained on real training clips alone; their posteriors give divergences."""

from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from torch import Tensor

from pipeline.evaluation import class_metric
from pipeline.evaluation.class_metric import ClassMetric, sound_class
from pipeline.evaluation.findings import Findings
from pipeline.evaluation.held_out import HeldOutClip
from pipeline.evaluation.listening import Listening
from tests.factories.evaluation import figures, findings_of, observed

RATE = 16_000


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
        found.append(Listening(clip, RATE, real, real, tone(made, 20 + seed)))
    return found


def measure(pool: list[HeldOutClip], items: list[Listening]) -> Findings:
    metric = ClassMetric(pool, 100)
    recordings = {}
    for clip in metric.recordings([item.clip for item in items]):
        wave = torch.from_numpy(soundfile.read(clip.uri, dtype="float32")[0])[None]
        item = Listening(clip, RATE, wave, wave, None)
        recordings[clip.clip_id] = observed(metric, item, ("real",))
    return findings_of(metric, items, recordings=recordings)


@pytest.mark.parametrize(("swapped", "accuracy"), [(False, 1.0), (True, 0.0)])
def test_accuracy_stands_beside_that_on_real_clips(
    tmp_path: Path, swapped: bool, accuracy: float
) -> None:
    pool = clips(tmp_path, {"train": 8, "validation": 2, "test": 4})
    found = measure(pool, listen(pool, swapped=swapped))
    assert figures(found)["sound class, esc"] == {
        "real": 1.0, "reconstructed": 1.0, "generated": accuracy,
        "classifier_on_held_out": 1.0, "chance": 0.5,
    }  # fmt: skip
    first = found.measures[0].figures(0)
    assert first["classifier_on_held_out"]["n"] == 6
    assert "8 real clips of the training split" in first["note"]
    assert "20 are needed" in found.skipped["inception score, sound class, esc"]


def test_posteriors_of_the_wrong_class_diverge(tmp_path: Path) -> None:
    pool = clips(tmp_path, {"train": 12, "test": 20})
    right, wrong = (figures(measure(pool, listen(pool, swapped=s))) for s in (False, True))
    name = "KL of class posteriors, sound class, esc"
    assert right[name]["reconstructed"] == 0
    assert 0 <= (right[name]["generated"] or 0) < 0.1 < (wrong[name]["generated"] or 0)
    score = right["inception score, sound class, esc"]
    assert 1.4 < (score["real"] or 0) <= 2


def test_no_measured_or_held_out_clip_is_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = clips(tmp_path, {"train": 12, "validation": 2, "test": 2})
    measured = [Listening(c, RATE, tone("hum", 0), tone("hum", 0), None) for c in pool[:2]]
    trained: list[int] = []

    class Spy(class_metric.Classifier):
        def __init__(self, features: Any, labels: Any) -> None:
            trained.append(len(features))
            super().__init__(features, labels)

    monkeypatch.setattr(class_metric, "Classifier", Spy)
    measure(pool, measured)
    assert trained == [10]
    heard = {clip.clip_id for clip in ClassMetric(pool, 100).recordings([i.clip for i in measured])}
    assert heard == {c.clip_id for c in pool if c.clip_id not in ("train-0", "train-1")}


def test_families_are_those_of_the_descriptions(tmp_path: Path) -> None:
    pool = clips(tmp_path, {"train": 8, "test": 2}, modality="music")
    first = measure(pool, listen(pool)).measures[0].figures(0)
    assert first["name"] == "instrument family"
    assert first["generated"] == {
        "value": 1.0, "low": pytest.approx(0.158, abs=1e-3), "high": 1.0, "n": 2,
    }  # fmt: skip


def test_missing_clips_are_a_reason_in_the_report(tmp_path: Path) -> None:
    pool = clips(tmp_path, {"train": 4, "test": 2})
    few = measure(pool, listen(pool))
    assert "0 classes have enough clips" in few.skipped["sound class, esc"]
    nothing = measure(pool, [])
    assert "no clip of sound" in nothing.skipped["sound class"]
    assert "no clip of music" in nothing.skipped["instrument family"]


def test_a_class_is_the_only_tag() -> None:
    base = {"clip_id": "a", "uri": "", "start_s": None, "end_s": None, "duration_s": 1.0,
            "modality": "sound", "language": None, "split": "test", "description": "",
            "transcript": None}  # fmt: skip
    assert sound_class(HeldOutClip(**base, tags=("Church_Bells",))) == "church bells"
    assert sound_class(HeldOutClip(**base, tags=("rain", "dog"))) is None
    assert sound_class(HeldOutClip(**base)) is None
