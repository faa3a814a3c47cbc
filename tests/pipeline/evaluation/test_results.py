"""The picture at the top of a report holds what can be compared with recordings on one scale."""

from pathlib import Path
from typing import Any

from pipeline.evaluation import results
from pipeline.figures import Interval


def _measure(name: str, better: str, *values: float) -> dict[str, Any]:
    forms = ("real", "reconstructed", "generated")[-len(values) :]
    shown = {
        f: {"value": v, "low": v, "high": None, "n": 50} for f, v in zip(forms, values, strict=True)
    }
    return {"modality": "music", "name": name, "better": better, "note": ""} | shown


def test_the_picture_holds_shares_that_recordings_have(tmp_path: Path, monkeypatch: Any) -> None:
    drawn: dict[str, Any] = {}
    monkeypatch.setattr(results, "save_intervals", lambda path, rows, limits: drawn.update(rows))
    measures = [
        _measure("key", "higher", 0.9, 0.7, 0.0),
        _measure("level, dBFS", "", -20.0, -20.0, -21.0),
        _measure("silence", "", 0.1, 0.1, 0.2),
        _measure("distance", "lower", 0.1, 0.2),
        _measure("clipped", "lower", 0.0, 0.0, 0.001),
        _measure("character error rate", "lower", 0.1, 0.2, 0.3),
    ]
    figure = results._glance(measures, tmp_path)
    assert figure is not None
    assert list(drawn) == ["music: key (higher)"]
    assert drawn["music: key (higher)"]["real"] == Interval(0.9, 0.9, None)
    assert results._glance(measures[1:], tmp_path) is None
