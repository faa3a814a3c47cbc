"""What descriptions ask for is read from them; what they do not say is not guessed."""

import pytest

from pipeline.acoustics.musical_key import KEY_NAMES
from pipeline.evaluation.musical_requests import (
    is_tempo_right,
    is_tempo_right_or_octave,
    requested_family,
    requested_key,
)


@pytest.mark.parametrize(("number", "name"), list(enumerate(KEY_NAMES)))
def test_every_key_by_its_name(number: int, name: str) -> None:
    assert requested_key(f"A calm piece in {name} with piano.") == number


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("in F# minor", "F-sharp minor"),
        ("in Bb Major.", "B-flat major"),
        ("in D sharp minor", "E-flat minor"),
        ("in Gb major", "F-sharp major"),
        ("in a minor mood", None),
        ("A minor key throughout", None),
        ("from C major to A minor", None),
        ("a major hit", None),
    ],
)
def test_key(text: str, name: str | None) -> None:
    assert requested_key(text) == (None if name is None else KEY_NAMES.index(name))


@pytest.mark.parametrize(
    ("text", "family"),
    [
        ("Jazz with electric piano and drums", "keyboard"),
        ("A bass guitar and a violin", "bass"),
        ("acoustic guitar, flute", "plucked strings"),
        ("A string section swells over a kick", "bowed strings"),
        ("led by SAXOPHONE", "wind"),
        ("a synth bass line", "bass"),
        ("hi-hat and snare", "percussion"),
        ("a hornet in a bassinet", None),
        ("calm music", None),
    ],
)
def test_family_of_the_first_instrument(text: str, family: str | None) -> None:
    assert requested_family(text) == family


def test_a_tempo_is_right_within_five_percent() -> None:
    assert is_tempo_right(126.0, 120.0)
    assert not is_tempo_right(126.1, 120.0)
    assert not is_tempo_right(60.0, 120.0)
    assert is_tempo_right_or_octave(60.0, 120.0)
    assert is_tempo_right_or_octave(252.0, 120.0)
    assert not is_tempo_right_or_octave(90.0, 120.0)
    assert not is_tempo_right(None, 120.0)
    assert not is_tempo_right_or_octave(None, 120.0)
