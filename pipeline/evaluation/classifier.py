"""A small classifier of audio, trained within an evaluation on real clips of the training split.

It sees statistics of the log-mel spectrum over time and is a support vector machine, so that it
trains in seconds and the same clips give the same classifier. Its results on generated audio are as
reliable as its accuracy on real held-out clips, which is always reported with them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torchaudio
from numpy.typing import NDArray
from torch import Tensor

from pipeline.evaluation.distance import at_level, log_mel

CLASSIFIER_RATE = 16_000
MIN_TRAINING_CLIPS = 4
"""Classes with fewer real clips to train on are left out."""
_PERCENTILES = (0.1, 0.5, 0.9)
_LAGS = (1, 4, 16)  # frames of 10 ms: how much changes over 10, 40 and 160 ms
_PENALTY = 10.0
_LINEAR_PENALTY = 0.1


class ClassifierError(ValueError):
    """There are too few clips to train on, or scikit-learn is not installed."""


class Classifier:
    """Classes of audio clips.

    Attributes:
        classes: Names of the classes, in alphabetical order.
        training_clips: Number of clips it was trained on.
    """

    def __init__(self, features: Sequence[NDArray[np.float32]], labels: Sequence[str]) -> None:
        """Train.

        Args:
            features: `clip_features` of each clip.
            labels: Class of each clip.

        Raises:
            ClassifierError: If fewer than two classes have enough clips, or scikit-learn is not
                installed.
        """
        try:
            from sklearn.linear_model import LogisticRegression
            from sklearn.pipeline import make_pipeline
            from sklearn.preprocessing import StandardScaler
            from sklearn.svm import SVC
        except ImportError as error:
            raise ClassifierError(
                "the classifier needs scikit-learn: install the extra `eval` "
                "(pip install 'audiocalm[eval]')"
            ) from error
        kept = trainable(labels)
        if len(kept) < 2:
            raise ClassifierError(
                f"{len(kept)} classes have {MIN_TRAINING_CLIPS} clips of the training split or "
                "more; at least 2 are needed"
            )
        rows = [place for place, label in enumerate(labels) if label in kept]
        machine = SVC(C=_PENALTY, class_weight="balanced", random_state=0)
        self._pipeline: Any = make_pipeline(StandardScaler(), machine)
        linear = LogisticRegression(C=_LINEAR_PENALTY, class_weight="balanced", max_iter=500)
        self._posteriors: Any = make_pipeline(StandardScaler(), linear)
        vectors, names = np.stack([features[row] for row in rows]), [labels[r] for r in rows]
        self._pipeline.fit(vectors, names)
        self._posteriors.fit(vectors, names)
        self.classes = tuple(sorted(kept))
        self.training_clips = len(rows)

    def classify(self, features: Sequence[NDArray[np.float32]]) -> list[str]:
        """The likeliest class of each clip."""
        return [str(name) for name in self._pipeline.predict(np.stack(features))]

    def posteriors(self, features: Sequence[NDArray[np.float32]]) -> NDArray[np.float64]:
        """Probability of each class, `clips classes`, by a logistic regression on the features.

        The support vector machine has no probabilities; the regression is trained on the same
        clips.
        """
        found: NDArray[np.float64] = self._posteriors.predict_proba(np.stack(features))
        return found


def trainable(labels: Sequence[str]) -> frozenset[str]:
    """Labels with enough clips to train on."""
    return frozenset(n for n, count in Counter(labels).items() if count >= MIN_TRAINING_CLIPS)


def clip_features(waveform: Tensor, sample_rate: int) -> NDArray[np.float32]:
    """Features of a clip, which do not depend on its level and duration.

    Args:
        waveform: `channels samples`; channels are averaged.
        sample_rate: Hz.
    """
    mono = torch.nan_to_num(waveform.float()).mean(0, keepdim=True)
    mono = at_level(torchaudio.functional.resample(mono, sample_rate, CLASSIFIER_RATE))
    shortest = CLASSIFIER_RATE // 5
    mono = torch.nn.functional.pad(mono, (0, max(0, shortest - mono.shape[-1])))
    bands = log_mel(mono, CLASSIFIER_RATE)[0]
    parts = [bands.mean(-1), bands.std(-1), *torch.quantile(bands, torch.tensor(_PERCENTILES), -1)]
    parts += [(bands[:, lag:] - bands[:, :-lag]).abs().mean(-1) for lag in _LAGS]
    loudness = bands.mean(0) - bands.mean()
    parts.append(_autocorrelation(loudness))
    return torch.cat(parts).numpy().astype(np.float32)


def _autocorrelation(loudness: Tensor) -> Tensor:
    """Repetition of the loudness at 16 lags from 20 ms to 640 ms, relative to none."""
    size = 2 * len(loudness)
    power = torch.fft.rfft(loudness, size).abs().square()
    correlation = torch.fft.irfft(power, size)
    lags = torch.arange(2, 65, 4)
    lags = lags.clamp(max=len(loudness) - 1)
    return correlation[lags] / correlation[0].clamp_min(1e-6)
