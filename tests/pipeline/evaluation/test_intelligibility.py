"""Digits; the recogniser on silence."""

import torch

from pipeline.evaluation import intelligibility


def test_a_digit_is_one_word() -> None:
    assert intelligibility.is_digit(" Seven. ")
    assert not intelligibility.is_digit("seven seven")


def test_the_digit_recogniser_hears_no_digit_in_silence() -> None:
    recogniser = intelligibility.Recogniser(single_digit=True)
    assert not intelligibility.is_heard(torch.zeros(1, 8000), 16_000, "seven", recogniser)
