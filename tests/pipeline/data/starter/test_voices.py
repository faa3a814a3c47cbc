"""There are enough voices, of both sexes, in enough languages, and no two are alike."""

from __future__ import annotations

from collections import defaultdict

import pytest

from pipeline.data.starter.lexicon import LANGUAGES
from pipeline.data.starter.voices import SPEAKERS


def test_voices_are_many_and_distinct() -> None:
    assert len({speaker.name for speaker in SPEAKERS}) == len(SPEAKERS)
    assert len({speaker.voice for speaker in SPEAKERS}) == len(SPEAKERS)


@pytest.mark.parametrize(("engine", "least"), [("espeak", 12), ("flite", 10)])
def test_every_engine_has_many_voices(engine: str, least: int) -> None:
    assert sum(speaker.engine == engine for speaker in SPEAKERS) >= least


def test_descriptions_tell_the_voices_of_flite_apart() -> None:
    described = [(who.sex, who.accent, who.timbre) for who in SPEAKERS if who.engine == "flite"]
    assert len(set(described)) == len(described)


@pytest.mark.parametrize("engine", ["espeak", "flite"])
def test_every_language_has_both_sexes_and_a_grammar(engine: str) -> None:
    sexes = defaultdict(set)
    for speaker in SPEAKERS:
        if speaker.engine == engine:
            sexes[speaker.language].add(speaker.sex)
    assert set(sexes) == (set(LANGUAGES) if engine == "espeak" else {"en"})
    assert all(found == {"female", "male"} for found in sexes.values())


def test_only_voices_whose_range_can_be_widened_are_lively() -> None:
    lively = {who.name for who in SPEAKERS if who.can_be_lively}
    assert {"ada", "bento", "rob", "max"} <= lively
    assert not {"emma", "james", "angus"} & lively
