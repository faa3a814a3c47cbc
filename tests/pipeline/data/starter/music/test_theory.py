"""Keys, chords and notes as in any textbook."""

from __future__ import annotations

import pytest

from pipeline.data.starter.music.theory import (
    Key,
    chord,
    frequency,
    nearest,
    scale_notes,
    voicing,
)

_C, _A_MINOR = Key(0, "major"), Key(9, "minor")


@pytest.mark.parametrize(
    ("numeral", "key", "pitches"),
    [
        ("I", _C, (0, 4, 7)),
        ("vi", _C, (9, 0, 4)),
        ("V7", _C, (7, 11, 2, 5)),
        ("IVmaj7", _C, (5, 9, 0, 4)),
        ("Isus2", _C, (0, 2, 7)),
        ("i", _A_MINOR, (9, 0, 4)),
        ("bVI", _A_MINOR, (5, 9, 0)),
        ("bVII", _A_MINOR, (7, 11, 2)),
        ("iv7", _A_MINOR, (2, 5, 9, 0)),
        ("V7", _A_MINOR, (4, 8, 11, 2)),
    ],
)
def test_numerals_are_chords(numeral: str, key: Key, pitches: tuple[int, ...]) -> None:
    assert chord(numeral, key).pitches == pitches
    assert chord(numeral, key).root == pitches[0]


@pytest.mark.parametrize("numeral", ["", "H", "VIII", "Iv", "i9"])
def test_other_numerals_are_refused(numeral: str) -> None:
    with pytest.raises(ValueError, match="roman numeral"):
        chord(numeral, _C)


def test_keys_have_names() -> None:
    assert str(_A_MINOR) == "A minor"
    assert str(Key(1, "major")) == "C sharp major"


def test_notes() -> None:
    assert frequency(69) == 440
    assert frequency(57) == 220
    assert nearest(9, 60) == 57
    assert nearest(0, 60) == 60
    assert scale_notes(_C, "major", 60, 72) == [60, 62, 64, 65, 67, 69, 71, 72]
    assert all(abs(note - 60) <= 6 for note in voicing(chord("V7", _C), 60))
