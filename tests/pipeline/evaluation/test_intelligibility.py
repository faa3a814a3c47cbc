"""Digits; the recogniser on silence."""

import torch

from pipeline.evaluation import intelligibility


def test_a_digit_is_one_word() -> None:
    assert intelligibility.is_digit(" Seven. ")
    assert not intelligibility.is_digit("seven seven")


def test_the_digit_recogniser_hears_no_digit_in_silence() -> None:
    recogniser = intelligibility.Recogniser(single_digit=True)
    assert not intelligibility.is_heard(torch.zeros(1, 8000), 16_000, "seven", recogniser)


def test_what_was_heard_before_has_no_influence() -> None:
    generator = torch.Generator().manual_seed(0)
    clips = [
        torch.randn(1, 16_000, generator=generator).cumsum(-1).sin() * level
        for level in (0.01, 0.9, 0.3)
    ]
    recogniser = intelligibility.Recogniser()
    alone = [intelligibility.Recogniser().transcribe(clips[2], 16_000)]
    for clip in clips[:2]:
        recogniser.transcribe(clip, 16_000)
    assert [recogniser.transcribe(clips[2], 16_000)] == alone
