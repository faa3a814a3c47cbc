"""Every kind of text comes out whole in every language, and numbers are spelled right."""

from __future__ import annotations

import re

import numpy as np
import pytest

from pipeline.data.starter.lexicon import LANGUAGES, grammar_of
from pipeline.data.starter.sentences import Kind, compose, vocabulary

_COMPOSED: tuple[Kind, ...] = ("digits", "number", "time", "word", "phrase", "sentence")


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("kind", _COMPOSED)
def test_texts_are_whole(kind: Kind, language: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        text = compose(kind, language, rng)
        assert re.fullmatch(r"[¿¡]?[^\W\d_][^\d_{}]*", text), text
        assert "  " not in text
        assert len(text) < 120


@pytest.mark.parametrize("language", LANGUAGES)
def test_sentences_begin_and_end_as_sentences_and_vary(language: str) -> None:
    rng = np.random.default_rng(0)
    texts = [compose("sentence", language, rng) for _ in range(80)]
    assert all(text[0].isupper() or text[0] in "¿¡" for text in texts)
    assert all(text[-1] in ".?!" for text in texts)
    assert len(set(texts)) > 55


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_rule_exists_and_is_used(language: str) -> None:
    rules = grammar_of(language).rules
    used = {name for texts in rules.values() for text in texts for name in _slots(text)}
    assert used <= set(rules)
    assert set(rules) - used <= {"number", "time", "phrase", "sentence"}
    assert all(rules.values())


def _slots(text: str) -> list[str]:
    assert text == " ".join(text.split())
    return re.findall(r"\{(\w+)\}", text)


def test_english_has_hundreds_of_words_and_thousands_of_sentences() -> None:
    rng = np.random.default_rng(0)
    assert 500 < len(vocabulary("en")) < 1000
    assert len({compose("sentence", "en", rng) for _ in range(3000)}) > 2700


def test_sentences_stay_within_the_vocabulary() -> None:
    rng = np.random.default_rng(0)
    known = {word.lower() for word in vocabulary("en")} | {"a", "i"}
    for _ in range(300):
        text = compose("sentence", "en", rng)
        assert {word.strip(".,?!").lower() for word in text.split()} <= known


def test_articles_fit_the_next_word() -> None:
    rng = np.random.default_rng(0)
    for _ in range(500):
        text = compose("phrase", "en", rng)
        assert not re.search(r"\b[Aa] [aeiou]|\b[Aa]n [^aeiou]", text), text


@pytest.mark.parametrize("language", LANGUAGES)
def test_there_are_a_hundred_different_numbers(language: str) -> None:
    numbers = grammar_of(language).numbers
    assert len(set(numbers)) == len(numbers) == 100


@pytest.mark.parametrize(
    ("language", "value", "word"),
    [
        ("en", 7, "seven"),
        ("en", 42, "forty-two"),
        ("de", 21, "einundzwanzig"),
        ("de", 67, "siebenundsechzig"),
        ("fr", 21, "vingt et un"),
        ("fr", 71, "soixante et onze"),
        ("fr", 80, "quatre-vingts"),
        ("fr", 81, "quatre-vingt-un"),
        ("fr", 99, "quatre-vingt-dix-neuf"),
        ("es", 22, "veintidós"),
        ("es", 46, "cuarenta y seis"),
        ("it", 21, "ventuno"),
        ("it", 33, "trentatré"),
        ("it", 88, "ottantotto"),
        ("pt", 94, "noventa e quatro"),
    ],
)
def test_numbers_are_spelled_as_in_the_language(language: str, value: int, word: str) -> None:
    assert grammar_of(language).numbers[value] == word


def test_single_digits_and_letters_are_one_word() -> None:
    rng = np.random.default_rng(0)
    digits = {compose("digit", "en", rng) for _ in range(200)}
    assert digits == set(grammar_of("en").digits)
    assert all(len(compose("letter", "fr", rng)) == 1 for _ in range(20))


def test_digits_in_a_row_are_two_to_five() -> None:
    rng = np.random.default_rng(0)
    counts = {len(compose("digits", "en", rng).replace(",", "").split()) for _ in range(200)}
    assert counts == {2, 3, 4, 5}


def test_counts_before_plurals_are_never_one() -> None:
    rng = np.random.default_rng(0)
    texts = [compose("phrase", "es", rng) for _ in range(200)]
    assert not [text for text in texts if re.search(r"uno? (?!más)", text)]


def test_unknown_kinds_and_languages_are_named() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"'tlh'.*en, de"):
        compose("sentence", "tlh", rng)
    with pytest.raises(ValueError, match="'sonnet'"):
        compose("sonnet", "en", rng)  # type: ignore[arg-type]  # the case that is tested
    with pytest.raises(ValueError, match="'open'"):
        compose("open", "en", rng)
