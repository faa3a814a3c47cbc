"""Texts that say the same are the same words; errors are those counted by hand."""

import pytest

from pipeline.evaluation.spoken_words import count_errors, has_words, readings

SAME = [
    ("seven", "7"),
    ("Seven.", "7!"),
    ("one two three", "123"),
    ("one two three", "1, 2, 3"),
    ("one hundred and twenty three", "123"),
    ("one hundred twenty-three", "123"),
    ("nineteen eighty four", "1984"),
    ("one thousand nine hundred and eighty-four", "1,984"),
    ("two forty five", "245"),
    ("o seven", "o 7"),
    ("twenty first of May", "21st of May"),
    ("seven o'clock", "7:00"),
    ("seven o\u2019clock", "seven o clock"),
    ("half past seven thirty", "half past 7:30"),
    ("nine oh five", "9:05"),
    ("nine a.m.", "9 AM"),
    ("Mister Smith and Doctor Jones", "Mr. Smith & Dr Jones"),
    ("five dollars", "$5"),
    ("ten percent", "10%"),
    ("three point one four", "3.14"),
    ("the colour of the centre", "the color of the center"),
    ("they realised it", "they realized it"),
    ("a grey theatre", "a gray theater"),
    ("his licence and defence", "his license and defense"),
    ("don't", "dont"),
]


@pytest.mark.parametrize(("said", "heard"), SAME)
def test_texts_that_say_the_same_have_no_errors(said: str, heard: str) -> None:
    assert count_errors(said, heard).word_edits == 0
    assert count_errors(heard, said).word_edits == 0


def test_accents_composed_or_not_are_the_same() -> None:
    assert count_errors("café", "cafe\u0301").character_edits == 0


@pytest.mark.parametrize(
    ("said", "heard"), [("seven", "eight"), ("four", "for"), ("7:30", "7:40"), ("1984", "1985")]
)
def test_texts_that_differ_have_errors(said: str, heard: str) -> None:
    assert count_errors(said, heard).word_edits > 0


def test_spellings_are_distinguished_on_request() -> None:
    assert count_errors("colour", "color", american_spelling=False).word_edits == 1
    assert count_errors("colour", "color").word_edits == 0


def test_numerals_are_read_in_the_language() -> None:
    assert count_errors("sieben", "7", "de").word_edits == 0
    assert count_errors("vingt et un", "21", "fr-fr").word_edits == 0
    assert readings("7", "xx") == [("7",)]


def test_characters_are_the_words_of_languages_without_spaces() -> None:
    found = count_errors("你好吗", "你好", "zh")
    assert (found.words, found.word_edits) == (3, 1)


def test_edits_are_those_counted_by_hand() -> None:
    found = count_errors("one two three four", "one too three")
    assert (found.word_edits, found.words) == (2, 4)  # two -> too, four missing
    assert (found.character_edits, found.characters) == (6, 18)  # w -> o, " four"
    assert (found.missing_at_end, found.extra_at_end) == (1, 0)


def test_words_beyond_the_end_and_silence_are_counted() -> None:
    assert count_errors("stop here", "stop here and and").extra_at_end == 2
    silent = count_errors("stop here", "")
    assert (silent.word_edits, silent.missing_at_end, silent.character_edits) == (2, 2, 9)


@pytest.mark.parametrize(
    ("heard", "skipped", "repeated"),
    [
        ("the rain has stopped", 0, 0),
        ("the rain the rain has stopped", 0, 2),
        ("the rain has has stopped", 0, 1),
        ("the rain has stopped stopped", 0, 1),
        ("the rain now has stopped", 0, 0),
        ("the has stopped", 1, 0),
        ("", 4, 0),
    ],
)
def test_skipped_and_repeated_words_are_counted_apart_from_other_errors(
    heard: str, skipped: int, repeated: int
) -> None:
    found = count_errors("the rain has stopped", heard)
    assert (found.skipped, found.repeated) == (skipped, repeated)


def test_very_long_numerals_are_read_digit_by_digit() -> None:
    assert count_errors("one " * 5000, "1" * 5000).word_edits == 0


def test_signs_alone_are_no_words() -> None:
    assert all(has_words(text) for text in ("7", "é", "你"))
    assert not any(has_words(text) for text in ("... — ?!", ""))


def test_a_transcript_without_words_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'\.\.\.' has no word"):
        count_errors("...", "a")
