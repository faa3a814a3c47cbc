"""Every kind of text comes out whole in every language, and numbers are spelled right."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.data.starter.lexicon import LEXICONS
from pipeline.data.starter.sentences import KINDS, compose


@pytest.mark.parametrize("language", LEXICONS)
@pytest.mark.parametrize("kind", KINDS)
def test_sentences_are_whole(kind: str, language: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(40):
        text = compose(kind, language, rng)
        assert not set("{}") & set(text)
        assert "  " not in text
        assert text[0].isupper() or text[0] in "¿¡"
        assert text[-1] in ".?!"
        assert len(text) < 120


@pytest.mark.parametrize("language", LEXICONS)
def test_sentences_vary(language: str) -> None:
    rng = np.random.default_rng(0)
    assert len({compose("statement", language, rng) for _ in range(60)}) > 50


@pytest.mark.parametrize("language", LEXICONS)
def test_there_are_a_hundred_different_numbers(language: str) -> None:
    numbers = LEXICONS[language].numbers
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
    assert LEXICONS[language].numbers[value] == word


def test_single_digits_and_letters_are_one_word() -> None:
    rng = np.random.default_rng(0)
    digits = {compose("digit", "en", rng) for _ in range(200)}
    assert digits == set(LEXICONS["en"].digits)
    assert all(len(compose("letter", "fr", rng)) == 1 for _ in range(20))


def test_counts_before_plurals_are_never_one() -> None:
    rng = np.random.default_rng(0)
    texts = [compose("number", "es", rng) for _ in range(200)]
    assert not [text for text in texts if "uno " in text]


def test_unknown_kinds_and_languages_are_named() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"'tlh'.*en, de"):
        compose("statement", "tlh", rng)
    with pytest.raises(ValueError, match=r"'sonnet'.*statement"):
        compose("sonnet", "en", rng)
