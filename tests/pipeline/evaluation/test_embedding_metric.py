"""Distances of sets are reported where there are enough clips; diversity by hand."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.evaluation.embedding_metric import EmbeddingMetric, mean_pairwise_distance
from pipeline.evaluation.frechet import extrapolated_distance, frechet_distance, kernel_distance
from pipeline.evaluation.listening import Listening
from tests.factories.evaluation import figures, findings_of, held_out_clip, observed


class FirstTwo:
    """The first two samples are the embedding; the text is not looked at."""

    name = "two"
    version = "1"

    def embed(self, waveform: Tensor, sample_rate: int) -> NDArray[np.floating]:
        return waveform[0, :2].numpy()

    def score(self, waveform: Tensor, sample_rate: int, text: str) -> float:
        return float(waveform[0, 0])


def listen(name: str, real: list[float], generated: list[float]) -> Listening:
    waves = [torch.tensor([values]) for values in (real, real, generated)]
    return Listening(held_out_clip(name), 8000, *waves)


def cloud(count: int, shift: float = 0.0) -> list[list[float]]:
    points = np.random.default_rng(0).normal(size=(count, 2)) + shift
    return points.tolist()


def test_distances_are_those_of_the_vectors_and_few_clips_have_none() -> None:
    points, moved = cloud(12), cloud(12, 3.0)
    metric = EmbeddingMetric(FirstTwo())
    items = [listen(f"c{n}", a, b) for n, (a, b) in enumerate(zip(points, moved, strict=True))]
    found = findings_of(metric, items)
    real, ours = (np.array(rows, np.float32).astype(float) for rows in (points, moved))
    assert figures(found)["two-FD"]["generated"] == pytest.approx(frechet_distance(ours, real))
    assert figures(found)["two-FD"]["generated"] == pytest.approx(18, rel=1e-5)
    assert figures(found)["two-FD, extrapolated"]["reconstructed"] == pytest.approx(
        extrapolated_distance(real, real)
    )
    assert figures(found)["two-KD"]["generated"] == pytest.approx(kernel_distance(ours, real))
    assert figures(found)["two score"]["real"] == pytest.approx(real[:, 0].mean())
    some = findings_of(metric, items[:7])
    assert "two-FD" in figures(some)
    # Half of the clips must be enough for a covariance as well.
    assert some.skipped["two-FD, extrapolated of speech"].endswith(
        "8 are needed: raise per_modality"
    )
    few = findings_of(metric, items[:3])
    assert [m.name for m in few.measures] == ["two score"]
    assert few.skipped["two-FD of speech"].endswith("4 are needed: raise per_modality")
    assert "10 are needed" in few.skipped["two-KD of speech"]


def test_diversity_is_relative_to_the_distance_between_recordings() -> None:
    metric = EmbeddingMetric(FirstTwo())
    items = [listen("a", [0, 0], [1, 0]), listen("b", [2, 2], [0, 0])]
    takes = {
        "a": [observed(metric, listen("a", [0, 0], made), ("generated",)) for made in ([1, 2],)],
        "b": [observed(metric, listen("b", [0, 0], made), ("generated",)) for made in ([0, 0],)],
    }
    found = figures(findings_of(metric, items, takes=takes))
    # Both features of the recordings have a deviation of 1, and their distance is sqrt(8).
    assert found["diversity between seeds, two"]["generated"] == pytest.approx(2 / 2 / 8**0.5)
    assert mean_pairwise_distance(np.array([[0.0, 0], [3, 4], [0, 0]])) == pytest.approx(10 / 3)
