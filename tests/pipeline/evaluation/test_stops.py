"""Every stop error is told from the others and from a clean stop."""

import dataclasses

import pytest
import torch

from pipeline.evaluation.recogniser import Heard
from pipeline.evaluation.spoken_words import count_errors
from pipeline.evaluation.stops import Spoken, speech_end_s, stop_error

RATE = 8000
TEXT = "the rain has stopped"
ENDS_S = (0.3, 0.6, 0.9, 1.2)


def spoken(
    duration_s: float = 1.3, speech_ends_s: float = 1.25, heard: str | None = None
) -> Spoken:
    base = Spoken(TEXT, duration_s, speech_ends_s, real_speech_s=1.2)
    if heard is None:
        return base
    count = len(heard.split())
    ends_s = (*ENDS_S, *(1.2 + 0.4 * extra for extra in range(1, 9)))[:count]
    return dataclasses.replace(base, heard=Heard(heard, ends_s), errors=count_errors(TEXT, heard))


@pytest.mark.parametrize(
    ("utterance", "error"),
    [
        (spoken(), None),
        (spoken(heard=TEXT), None),
        (spoken(heard="the rein has topped"), None),  # misheard is not missing
        (spoken(0.5, 0.5), "early"),
        (spoken(1.0, 1.0, heard="the rain has"), "early"),
        (spoken(2.4, 1.25), "late"),
        (spoken(2.4, 2.4, heard=TEXT), "late"),  # noise to the end
        (spoken(2.9, 2.9, heard=TEXT + " and and and"), "late"),  # babble
        (spoken(2.1, 2.1, heard=TEXT), None),
        (spoken(1.3, 0.0, heard=""), "early"),  # silence
        (spoken(1.3, 1.25, heard=""), None),  # as long as it should be, but not understood
        (spoken(5.0, 5.0, heard=TEXT), "missing"),  # 20 letters take 2 + 20 * 0.15 s at most
    ],
)
def test_stop_errors(utterance: Spoken, error: str | None) -> None:
    assert stop_error(utterance) == error


def test_speech_ends_with_the_last_audible_frame() -> None:
    clip = torch.zeros(1, RATE)
    assert speech_end_s(clip, RATE) == 0
    clip[:, : RATE // 2] = 0.1
    clip[:, RATE // 2 :] = 1e-4  # hiss, 60 dB below
    assert speech_end_s(clip, RATE) == 0.5
    clip[:, -1] = 0.1
    assert speech_end_s(clip, RATE) == 1.0
    assert speech_end_s(torch.zeros(1, 0), RATE) == 0
