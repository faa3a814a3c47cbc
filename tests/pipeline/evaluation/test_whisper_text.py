"""The usual word error rate: jiwer after Whisper's normalisation."""

import json
from pathlib import Path

import pytest

from pipeline.evaluation.whisper_text import count_word_errors, spelling_file, whisper_normalised

jiwer = pytest.importorskip("jiwer")
pytest.importorskip("transformers")

PAIRS = [
    ("Mr. Brown hasn't seen it.", "mister brown has not seen it"),
    ("He paid twenty-one dollars.", "he paid $21"),
    ("The rain has stopped.", "the rein has"),
    ("Well, er, go on.", "well go on on"),
]


@pytest.mark.parametrize(
    ("text", "language", "normalised"),
    [
        ("Mr. Brown hasn't seen (coughs) it.", "en", "mister brown has not seen it"),
        ("He paid twenty-one dollars.", "en-gb", "he paid $21"),
        ("Où êtes-vous ?", "fr", "où êtes vous"),
        ("你好", "zh", "你 好"),
    ],
)
def test_normalised_texts_are_those_of_the_published_normaliser(
    text: str, language: str, normalised: str
) -> None:
    assert whisper_normalised(text, language) == normalised


def test_british_spelling_follows_the_table_of_the_model(tmp_path: Path) -> None:
    assert spelling_file(tmp_path) is None
    (tmp_path / "normalizer.json").write_text(json.dumps({"colour": "color"}))
    assert whisper_normalised("colour", "en") == "colour"
    assert whisper_normalised("colour", "en", spelling_file(tmp_path)) == "color"


def test_the_rate_over_clips_is_that_of_jiwer() -> None:
    counted = [count_word_errors(said, heard) for said, heard in PAIRS]
    edits = sum(pair[0] for pair in counted if pair)
    words = sum(pair[1] for pair in counted if pair)
    expected = jiwer.wer(
        [whisper_normalised(said) for said, _ in PAIRS],
        [whisper_normalised(heard) for _, heard in PAIRS],
    )
    assert edits / words == pytest.approx(expected)
    assert (edits, words) == (4, 17)


def test_a_transcript_of_fillers_has_no_rate_and_silence_has_all_errors() -> None:
    assert count_word_errors("Hmm uh", "a") is None
    assert count_word_errors("stop here", "") == (2, 2)
