"""Pronunciation by eSpeak NG, and the tokenizer that uses it."""

# ruff: noqa: RUF001

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from model.phonemes import (
    PronunciationError,
    UnknownLanguageError,
    close_library,
    pronounced,
)
from model.text import ByteTokenizer, PhonemeTokenizer, Prompt, load_tokenizer, prompt_ids

TOKENIZER = PhonemeTokenizer()


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("seven", None, "sˈɛvən"),
        ("seven", "en-us", "sˈɛvən"),
        ("Guten Tag, wie geht es?", "de-DE", "ɡˈuːtən tˈɑːk, viː ɡˈeːt ɛs?"),
        ("A, b", "en", "ˈeɪ, bˈiː"),
        ("What a day! Yes", "en", "wˌʌt ɐ dˈeɪ! jˈɛs"),
        ("Wait.", "en", "wˈeɪt."),
        ("", "en", ""),
        ("...", "en", ""),
    ],
)
def test_words_are_pronounced_clause_by_clause(
    text: str, language: str | None, expected: str
) -> None:
    assert pronounced(text, language) == expected


def test_numbers_sound_as_their_words() -> None:
    assert pronounced("42", "en") == pronounced("forty two", "en")


def test_languages_that_alternate_do_not_mix() -> None:
    for _ in range(2):
        assert pronounced("die", "en") == "dˈaɪ"
        assert pronounced("die", "de") == "diː"


def test_a_language_whose_sounds_are_not_known_is_spelled() -> None:
    with pytest.raises(UnknownLanguageError, match="'qq'"):
        pronounced("x", "qq")
    assert TOKENIZER.encode_words("xy", "qq") == [260, *b"xy", 260]


def test_it_opens_again_after_the_library_was_closed() -> None:
    close_library()
    close_library()
    assert pronounced("reopened", "en") == "ɹɪˈoʊpənd"


def test_threads_share_the_library() -> None:
    texts = [f"number {index}" for index in range(200)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda text: pronounced(text, "en"), texts))
    assert found == [pronounced(text, "en") for text in texts]


def test_without_the_package_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    close_library()
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(PronunciationError, match="espeakng-loader"):
        pronounced("not asked before", "en")


def test_words_become_sounds_and_the_description_stays_as_it_is() -> None:
    prompt = Prompt(description="A man speaks.", transcript="seven", language="en")
    ids = prompt_ids(prompt, TOKENIZER, has_speaker=True)
    assert TOKENIZER.decode(ids) == "A man speaks.\n(language en)\nSays:  sˈɛvən "
    plain = prompt_ids(prompt, ByteTokenizer(), has_speaker=True)
    bytes_alone = [number for number in ids if number < 512]
    num_same = len(bytes_alone) - 1 - len(TOKENIZER.encode_words("seven", "en"))
    assert bytes_alone[:num_same] == plain[:num_same]
    assert ByteTokenizer().decode(plain).endswith("Says: seven")


@pytest.mark.parametrize(
    ("words", "language"),
    [("Übung macht den Meister", "de"), ("un garçon", "fr"), ("señor", "es"), ("xin chào", "vi"),
     ("Привет мир", "ru"), ("the churches", "en")],
)  # fmt: skip
def test_the_alphabet_has_the_sounds_of_many_languages(words: str, language: str) -> None:
    ids = TOKENIZER.encode_words(words, language)
    assert all(TOKENIZER.pad_id < number < TOKENIZER.vocab_size for number in ids)


def test_a_symbol_outside_the_alphabet_is_spelled_in_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("model.text.pronounced", lambda text, language: "a\u2603")
    ids = TOKENIZER.encode_words("x", "en")
    assert TOKENIZER.decode(ids) == " a\u2603 "
    assert [number for number in ids if number < 256] == list("\u2603".encode())


def test_words_of_a_description_have_an_id_before_their_bytes() -> None:
    thunder, dogs = TOKENIZER.encode("Thunder"), TOKENIZER.encode("dogs, 2")
    assert thunder[1:] == list(b"Thunder")
    assert dogs[1:] == list(b"dogs, 2"), "numbers and marks are bytes alone"
    assert thunder[0] == TOKENIZER.encode("thunderstorm")[0] == TOKENIZER.encode("THUNDERS")[0]
    assert dogs[0] == TOKENIZER.encode("dog")[0] != thunder[0]
    assert all(512 <= ids[0] < TOKENIZER.vocab_size for ids in (thunder, dogs))
    assert TOKENIZER.decode([*thunder, *dogs]) == "Thunderdogs, 2"


def test_it_is_loaded_by_name_and_from_its_folder(tmp_path: Path) -> None:
    TOKENIZER.save(tmp_path)
    for source in ("phonemes", tmp_path):
        assert type(load_tokenizer(source)) is PhonemeTokenizer
    (tmp_path / "byte_tokenizer.json").write_text('{"name": "letters"}')
    with pytest.raises(ValueError, match="names 'letters'"):
        load_tokenizer(tmp_path)
