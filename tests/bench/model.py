"""Sampler and training step of model presets with random weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from tests.bench import model_sampling, model_training
from tests.bench.measure import Row
from tests.bench.subject import Subject


def rows(repeats: int, presets: Sequence[str] | None = None) -> Iterator[Row]:
    """Every figure against a named alternative, preset by preset.

    Args:
        repeats: Pairs of the cheaper rows; the others take half.
        presets: Names of `model.config.PRESETS`; None is tiny, or 0.6b on a GPU.
    """
    for name in presets or (["0.6b"] if torch.cuda.is_available() else ["tiny"]):
        subject = Subject(name)
        yield from model_sampling.rows(subject, repeats)
        yield from model_training.rows(subject, max(1, repeats // 2))
