from __future__ import annotations

import pytest

from pipeline.data.corpora.lookup import AudioIndex, AudioLookupError

NAMES = [
    "audio/a.wav",
    "audio/deep/b.flac",
    "cafe\u0301.ogg",
    "clips/c.mp3",
    "d.flac",
    "d.wav",
    "two.dots.wav",
]


@pytest.fixture
def index():
    return AudioIndex(NAMES, "/corpus")


@pytest.mark.parametrize(
    ("reference", "near", "name", "is_noted"),
    [
        ("audio/a.wav", "", "audio/a.wav", False),
        ("./audio/../audio/a.wav", "", "audio/a.wav", False),
        ("a.wav", "", "audio/a.wav", False),
        ("a", "", "audio/a.wav", False),
        ("../audio/a.wav", "meta", "audio/a.wav", False),
        ("/corpus/audio/a.wav", "", "audio/a.wav", False),
        ("deep/b", "", "audio/deep/b.flac", False),
        ("two.dots", "", "two.dots.wav", False),
        (" a.wav ", "", "audio/a.wav", False),
        ("audio\\a.wav", "", "audio/a.wav", False),
        ("c.wav", "", "clips/c.mp3", True),
        ("caf\u00e9.ogg", "", "cafe\u0301.ogg", True),
        ("d.wav", "", "d.wav", False),
    ],
)
def test_a_reference_finds_its_file(index, reference, near, name, is_noted):
    found, note = index.find(reference, near)
    assert found == name
    assert (note is not None) == is_noted


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("", "missing_value"),
        ("A.wav", "missing_audio"),
        ("z.wav", "missing_audio"),
        ("d", "ambiguous_audio"),
        ("../a.wav", "outside_corpus"),
        ("audio/../../a.wav", "outside_corpus"),
        ("/etc/passwd", "outside_corpus"),
        ("/corpus-too/audio/a.wav", "outside_corpus"),
        ("https://host/a.wav", "outside_corpus"),
    ],
)
def test_a_reference_that_is_none_says_why(index, reference, reason):
    with pytest.raises(AudioLookupError) as caught:
        index.find(reference)
    assert caught.value.reason == reason
