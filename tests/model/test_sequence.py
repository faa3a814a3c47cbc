"""Documents and the positions of their audio."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from jaxtyping import TypeCheckError

from model.sequence import AudioPositions
from tests.factories.model import random_document, tiny_config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"token_ids": torch.zeros(0, dtype=torch.int64)}, "0 tokens"),
        ({"history": torch.zeros(8, 6)}, "history is (8, 6), not (12, 6)"),
        ({"noise": torch.zeros(2, 12, 6)}, "noise is (2, 12, 6) for 1 copies"),
        ({"num_valid_frames": 13}, "num_valid_frames 13 is outside 1..12"),
        ({"modality": "noise"}, "modality 'noise'"),
    ],
)
def test_a_document_whose_parts_do_not_fit_is_refused(
    changes: dict[str, Any], message: str
) -> None:
    # Shapes that the annotations already refuse in tests are refused at run time as well.
    with pytest.raises((ValueError, TypeCheckError), match=re.escape(message) + "|Type-check"):
        random_document(tiny_config(), 0, **changes)


def test_audio_runs_along_the_words_as_long_as_each_lasts() -> None:
    # A prefix of 12 tokens of which the 4 before the last are words; the second is not heard.
    positions = AudioPositions.along_words(12, (2.0, 0.0, 1.5, 2.5))
    expected = [7.25, 7.75, 9 + 0.5 / 1.5, 10.0, 10.4, 10.8, 11.5, 12.5]
    assert positions.of(torch.arange(8)).tolist() == pytest.approx(expected)


def test_frames_stand_at_a_steady_rate_where_no_words_pace_them() -> None:
    frames = torch.arange(3)
    assert AudioPositions.after(5).of(frames).tolist() == [5, 6, 7]
    assert AudioPositions.after(5, 1.5).of(frames).tolist() == [5, 6.5, 8]


def test_durations_of_more_words_than_there_are_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match="5 durations for 5 tokens"):
        random_document(tiny_config(), 0, durations=(1.0,) * 5)
