"""Layout of one document."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from jaxtyping import TypeCheckError

from model.sequence import CLEAN, NOISY, PREFIX, AudioPositions, document_layout, document_length
from tests.factories.model import random_document, tiny_config


def test_layout_is_prefix_then_clean_then_noisy_copies() -> None:
    layout = document_layout(num_text=2, num_frames=4, num_copies=2, frames_per_block=2)
    assert layout.segment.tolist() == [PREFIX] * 2 + [CLEAN] * 4 + [NOISY] * 8
    assert layout.block.tolist() == [0, 1] + [0, 0, 1, 1] * 3
    assert layout.copy.tolist() == [0] * 6 + [0] * 4 + [1] * 4
    assert len(layout.segment) == document_length(2, 4, 2) == 14


def test_noisy_copies_stand_at_the_positions_of_their_clean_twins() -> None:
    layout = document_layout(num_text=3, num_frames=6, num_copies=2, frames_per_block=3)
    clean = layout.position[layout.segment == CLEAN]
    assert clean.tolist() == [3, 4, 5, 6, 7, 8]
    for copy in (0, 1):
        noisy = (layout.segment == NOISY) & (layout.copy == copy)
        assert torch.equal(layout.position[noisy], clean)


def test_frames_must_be_whole_blocks() -> None:
    with pytest.raises(ValueError, match="5 frames are not whole blocks of 4"):
        document_layout(1, 5, 1, 4)


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


def test_audio_runs_along_the_words_at_the_given_pace() -> None:
    # A prefix of 12 tokens of which the 4 before the last are words, 2 frames a word.
    positions = AudioPositions.along_words(12, 4, 2.0)
    layout = document_layout(12, 8, 2, 4, positions)
    clean = layout.position[layout.segment == CLEAN]
    assert clean.tolist() == [7.0, 7.5, 8.0, 8.5, 9.0, 9.5, 10.0, 10.5]
    for copy in range(2):
        noisy = (layout.segment == NOISY) & (layout.copy == copy)
        assert torch.equal(layout.position[noisy], clean)
    assert layout.position[:12].tolist() == list(range(12))
