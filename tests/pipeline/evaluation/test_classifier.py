"""The classifier learns what can be told apart, is the same every time, and says its accuracy."""

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.evaluation.classifier import Classifier, ClassifierError, clip_features, trainable

RATE = 16_000


def clip(kind: str, seed: int, rate: int = RATE) -> Tensor:
    """A clip of a class: noise, a low tone or a high tone, at a level of its own."""
    draw = torch.Generator().manual_seed(seed)
    time_s = torch.arange(rate // 2) / rate
    noise = torch.randn(rate // 2, generator=draw)
    pitch_hz = {"low": 200.0, "high": 3000.0, "noise": 0.0}[kind] * (1 + 0.1 * seed / 10)
    tone = torch.sin(2 * torch.pi * pitch_hz * time_s)
    level = 0.05 * (1 + seed)
    return level * (noise if kind == "noise" else tone + 0.05 * noise)[None]


def features(kinds: list[str], seeds: range) -> tuple[list[np.ndarray], list[str]]:
    pairs = [(clip_features(clip(kind, seed), RATE), kind) for kind in kinds for seed in seeds]
    return [vector for vector, _ in pairs], [kind for _, kind in pairs]


def test_held_out_clips_of_different_classes_are_classified() -> None:
    train, test = (features(["low", "high", "noise"], seeds) for seeds in (range(6), range(6, 9)))
    classifier = Classifier(*train)
    assert classifier.classes == ("high", "low", "noise")
    assert classifier.training_clips == 18
    assert classifier.classify(test[0]) == test[1]
    assert Classifier(*train).classify(test[0]) == classifier.classify(test[0])


def test_posteriors_are_of_the_classes_in_order() -> None:
    classifier = Classifier(*features(["low", "high", "noise"], range(6)))
    vectors, labels = features(["low", "high", "noise"], range(6, 9))
    found = classifier.posteriors(vectors)
    assert found.sum(-1) == pytest.approx(np.ones(9))
    assert [classifier.classes[row.argmax()] for row in found] == labels


def test_level_and_rate_are_not_heard() -> None:
    quiet, loud = clip("noise", 1), 10 * clip("noise", 1)
    np.testing.assert_allclose(clip_features(quiet, RATE), clip_features(loud, RATE), atol=1e-3)
    narrow = clip_features(clip("low", 1, 8000), 8000)
    assert narrow.shape == clip_features(quiet, RATE).shape


@pytest.mark.parametrize("samples", [1, 100, RATE // 4])
def test_short_and_silent_clips_have_features(samples: int) -> None:
    found = clip_features(torch.zeros(2, samples), RATE)
    assert np.isfinite(found).all()


def test_rare_classes_are_left_out_and_one_class_is_refused() -> None:
    vectors, labels = features(["low", "high"], range(4))
    rare = Classifier([*vectors, vectors[0]], [*labels, "rare"])
    assert rare.classes == ("high", "low")
    assert trainable([*labels, "rare"]) == {"low", "high"}
    with pytest.raises(ClassifierError, match="1 classes have 4 clips"):
        Classifier(vectors[:4], labels[:4])
