"""Digits; the recogniser on silence."""

import math

import torch

from pipeline.evaluation import intelligibility


def test_a_digit_is_one_word() -> None:
    assert intelligibility.is_digit(" Seven. ")
    assert not intelligibility.is_digit("seven seven")


def test_the_digit_recogniser_hears_no_digit_in_silence() -> None:
    recogniser = intelligibility.Recogniser(single_digit=True)
    assert not intelligibility.is_heard(torch.zeros(1, 8000), 16_000, "seven", recogniser)


def _buzz(seed: int) -> torch.Tensor:
    """Syllables of a buzzing voice in noise of a level of its own, `1 samples`, 16 kHz."""
    random, times = torch.Generator().manual_seed(seed), torch.arange(24_000) / 16_000
    pitch = 90 + 60 * torch.rand(1, generator=random)
    voice = sum(
        torch.sin(2 * math.pi * pitch * k * times) / k
        * (1 + torch.sin(2 * math.pi * times * k * 0.7 + seed))
        for k in range(1, 30)
    )  # fmt: skip
    noise = torch.randn(24_000, generator=random) * 10 ** (2 * torch.rand(1, generator=random) - 3)
    is_open = torch.sin(2 * math.pi * 3 * times + seed) > -0.3
    return (0.1 * voice * is_open + noise)[None]


def test_what_was_heard_before_has_no_influence() -> None:
    clips = [_buzz(seed) for seed in range(5)]
    recogniser = intelligibility.Recogniser()
    forwards = [recogniser.transcribe(clip, 16_000) for clip in clips]
    backwards = [recogniser.transcribe(clip, 16_000) for clip in reversed(clips)]
    assert forwards == backwards[::-1]
    assert len(set(forwards)) > 2
