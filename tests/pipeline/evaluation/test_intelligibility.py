"""Word errors against hand counts; the recogniser on silence."""

import pytest
import torch

from pipeline.evaluation import intelligibility


def test_word_error_rate_counts_edits_over_reference_words() -> None:
    rate = intelligibility.word_error_rate(
        ["One two, THREE four!", "five"], ["one two four", "five"]
    )
    assert rate == pytest.approx(1 / 5)


def test_references_without_words_are_refused() -> None:
    with pytest.raises(ValueError, match="no reference"):
        intelligibility.word_error_rate(["..."], ["a"])
    with pytest.raises(ValueError, match="1 references and 2"):
        intelligibility.word_error_rate(["a"], ["a", "b"])


def test_a_digit_is_one_word() -> None:
    assert intelligibility.is_digit(" Seven. ")
    assert not intelligibility.is_digit("seven seven")


def test_the_digit_recogniser_hears_no_digit_in_silence_and_needs_clips() -> None:
    recogniser = intelligibility.Recogniser(single_digit=True)
    silence = (torch.zeros(1, 8000), 16_000, "seven")
    assert intelligibility.digit_accuracy([silence], recogniser) == 0
    with pytest.raises(ValueError, match="no digit clips"):
        intelligibility.digit_accuracy([], recogniser)
