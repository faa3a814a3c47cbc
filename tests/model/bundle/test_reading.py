"""How long words take, whether there are any, and the parts that a long text is read in."""

from __future__ import annotations

import random
import unicodedata

import pytest

from model.bundle.reading import (
    expected_s,
    has_words,
    part_seed,
    parts_of,
    reading_time_s,
    speech_bounds_s,
)
from model.text import clean_text


def test_the_cap_grows_with_what_is_read() -> None:
    assert speech_bounds_s("hello")[1] < speech_bounds_s("hello hello")[1]
    assert speech_bounds_s("1234")[1] > speech_bounds_s("abcd")[1]
    assert speech_bounds_s("你好")[1] > speech_bounds_s("ab")[1]
    assert speech_bounds_s("la la", is_singing=True)[1] > speech_bounds_s("la la")[1]


def test_reading_time_counts_what_is_a_syllable() -> None:
    assert reading_time_s("") == 0
    assert reading_time_s("ab") == pytest.approx(0.3)
    assert reading_time_s("42") == pytest.approx(1.0)
    shortest_s, longest_s = speech_bounds_s("ab")
    assert (shortest_s, longest_s) == (pytest.approx(0.3 / 8), pytest.approx(2.3))


@pytest.mark.parametrize(
    "text",
    ["", "...", "\U0001f642\U0001f642", "\u200b", "\n-\n", "***", "\u3164", "\u2800", "\u0301"],
)
def test_texts_without_words_are_recognised(text: str) -> None:
    assert not has_words(text)


@pytest.mark.parametrize("text", ["a", "7", "\u4f60", "\u0928\u092e", "... ok", "1\ufe0f\u20e3"])
def test_texts_with_words_are_recognised(text: str) -> None:
    assert has_words(text)


def test_a_short_text_is_one_part_to_the_letter() -> None:
    assert parts_of("Hello there. How are you?", "en", 20.0) == ["Hello there. How are you?"]


def test_sentences_stay_whole_and_share_a_part_where_they_fit() -> None:
    text = "Dr. Smith came in. He sat down. Then he said nothing for a while."
    assert parts_of(text, "en", 2.6) == [
        "Dr. Smith came in. He sat down.",
        "Then he said nothing for a while.",
    ]
    assert parts_of("今日は晴れです。散歩に行きましょう。", "ja", 2.5) == [
        "今日は晴れです。",
        "散歩に行きましょう。",
    ]


def test_a_long_sentence_is_divided_after_a_clause_then_between_words_then_anywhere() -> None:
    clauses = "When it rains in the hills, the river comes up to the road by night"
    assert parts_of(clauses, "en", 3.0) == [
        "When it rains in the hills,",
        "the river comes up to the road by night",
    ]
    assert parts_of("one two three four", "en", 1.0) == ["one two three", "four"]
    assert parts_of("\u4e03" * 9, "zh", 1.0) == ["\u4e03" * 4, "\u4e03" * 4, "\u4e03"]


def test_marks_stay_with_what_they_mark() -> None:
    text = "e\u0323\u0304" * 12
    for part in parts_of(text, "en", 0.3):
        assert not unicodedata.combining(part[0])


@pytest.mark.parametrize("language", [None, "en", "de", "zh-Hant", "xx"])
def test_no_character_is_lost_and_every_part_has_words(language: str | None) -> None:
    generator = random.Random(str(language))
    pieces = [chr(c) for c in range(32, 0x3100)] + [
        ". ",
        " ",
        "Mr. ",
        "e.g. ",
        "! ",
        "\u3002",
    ] * 900
    for _ in range(150):
        text = clean_text("".join(generator.choices(pieces, k=generator.randrange(1, 120))))[0]
        if not has_words(text):
            continue
        longest_s = generator.choice([0.01, 0.5, 3.0])
        parts = parts_of(text, language, longest_s)
        assert "".join(parts).replace(" ", "") == text.replace(" ", "")
        assert all(has_words(part) for part in parts)


def test_parts_keep_to_the_limit() -> None:
    text = "The quick brown fox jumps over the lazy dog, and on it goes. " * 30
    parts = parts_of(text.strip(), "en", 5.0)
    assert max(expected_s(part) for part in parts) <= 5.0
    assert len(parts) > 10


def test_the_first_part_has_the_seed_of_the_request() -> None:
    seeds = [part_seed(2**63 - 1, index) for index in range(50)]
    assert seeds[0] == 2**63 - 1
    assert len(set(seeds)) == 50
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert seeds == [part_seed(2**63 - 1, index) for index in range(50)]
