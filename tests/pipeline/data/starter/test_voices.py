"""There are enough voices, of both sexes, in enough languages."""

from __future__ import annotations

from collections import defaultdict

from pipeline.data.starter.lexicon import LEXICONS
from pipeline.data.starter.voices import SPEAKERS


def test_voices_are_many_and_distinct() -> None:
    assert len(SPEAKERS) >= 12
    assert len({speaker.name for speaker in SPEAKERS}) == len(SPEAKERS)
    voices = {(speaker.voice, speaker.pitch) for speaker in SPEAKERS}
    assert len(voices) == len(SPEAKERS)


def test_every_language_has_both_sexes_and_a_lexicon() -> None:
    sexes = defaultdict(set)
    for speaker in SPEAKERS:
        sexes[speaker.language].add(speaker.sex)
    assert len(sexes) >= 4
    assert set(sexes) == set(LEXICONS)
    assert all(found == {"female", "male"} for found in sexes.values())
