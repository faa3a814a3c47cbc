"""Captions of speech say who speaks, how and where, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.data.starter.spoken_captions import NOISE, ROOM, spoken_captions
from pipeline.data.starter.voices import SPEAKERS, Speaker


@pytest.mark.parametrize("speaker", SPEAKERS, ids=lambda who: who.name)
def test_the_voice_is_described_and_named(speaker: Speaker) -> None:
    for seed in range(10):
        full, named = spoken_captions(speaker, "neutral", (), np.random.default_rng(seed))
        assert ("woman" in full) == (speaker.sex == "female")
        assert speaker.timbre in full.lower()
        assert speaker.accent in full
        assert speaker.name.capitalize() in named
        for text in (full, named):
            assert text[0].isupper()
            assert text.endswith(".")
            assert "  " not in text
            assert not any(word in text for word in ("slowly", "quickly", "lively way", "room"))


@pytest.mark.parametrize(
    ("manner", "words"),
    [("slow", "slowly"), ("fast", "quickly"), ("lively", "in a lively way")],
)
def test_the_manner_is_described(manner: str, words: str) -> None:
    for seed in range(10):
        full, _ = spoken_captions(SPEAKERS[0], manner, (), np.random.default_rng(seed))
        assert words in full
        assert "normal" not in full


@pytest.mark.parametrize("surroundings", [(), (ROOM,), (NOISE,), (ROOM, NOISE)])
def test_room_and_noise_are_described_where_they_are(surroundings: tuple[str, ...]) -> None:
    for seed in range(20):
        full, named = spoken_captions(
            SPEAKERS[0], "neutral", surroundings, np.random.default_rng(seed)
        )
        is_echoing = any(word in full for word in (" room", "echoing"))
        assert is_echoing == (ROOM in surroundings)
        assert ("noise" in full) == (NOISE in surroundings)
        for text in (full, named):
            if ROOM in surroundings:
                assert not any(word in text for word in ("dry", "without any echo", "close to"))


def test_other_languages_are_named() -> None:
    anke = next(who for who in SPEAKERS if who.language == "de")
    for seed in range(10):
        assert "German" in spoken_captions(anke, "slow", (), np.random.default_rng(seed))[0]
