"""A user's text becomes sentences that a voice reads as they are written; the rest is left out."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.data.starter.open_sentences import read_sentences
from pipeline.errors import SettingsError


def _read(folder: Path, text: str) -> tuple[str, ...]:
    path = folder / "text.txt"
    path.write_text(text, encoding="utf-8")
    read_sentences.cache_clear()
    return read_sentences(path)


@pytest.mark.parametrize(
    ("line", "sentences"),
    [
        ("the lamp is on", ("The lamp is on.",)),
        ("  Is it you?  No, it is not!", ("Is it you?", "No, it is not!")),
        ("WHEN I SAW THE SEA", ("When I saw the sea.",)),
        ("It\u2019s \u201cvery\u201d late", ("It's very late.",)),
        ("He came \u2014 and went;", ("He came, and went.",)),
        ("Mr. Hale met Mrs Lee.", ("Mister Hale met Missis Lee.",)),
        ("a well-known song,", ("A well-known song.",)),
    ],
)
def test_lines_become_sentences(tmp_path: Path, line: str, sentences: tuple[str, ...]) -> None:
    assert _read(tmp_path, line) == sentences


@pytest.mark.parametrize(
    "line",
    [
        "Alone.",
        "There are 3 boats.",
        "Ask the USA for help.",
        "Ask J for help.",
        "Ask mcDonald for help.",
        "They met at St. Paul.",
        "The pth root of it.",
        "A na\u00efve plan.",
        "Write to a@b.org now.",
        "It costs $ nine.",
        "",
        " ".join(["word"] * 17),
    ],
)
def test_lines_that_are_not_spoken_as_written_are_left_out(tmp_path: Path, line: str) -> None:
    assert _read(tmp_path, f"{line}\nThe lamp is on.") == ("The lamp is on.",)


def test_long_sentences_are_cut_at_commas(tmp_path: Path) -> None:
    long = "one two three four five six seven eight nine, and so on they went until the end of it"
    assert _read(tmp_path, long) == (
        "One two three four five six seven eight nine.",
        "And so on they went until the end of it.",
    )


def test_sentences_keep_their_order_and_come_once(tmp_path: Path) -> None:
    text = "So it is.\nWas it so?\nso it is\n"
    assert _read(tmp_path, text) == ("So it is.", "Was it so?")


def test_a_file_without_sentences_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"text\.txt.*\(2 lines\).*2 to 16 words"):
        _read(tmp_path, "1 2 3\n4 5 6\n")


@pytest.mark.parametrize("payload", [None, b"\xff\xfe\xff"])
def test_an_unreadable_file_is_an_error(tmp_path: Path, payload: bytes | None) -> None:
    path = tmp_path / "odd.txt"
    if payload is not None:
        path.write_bytes(payload)
    with pytest.raises(SettingsError, match=r"speech\.sentences .*odd\.txt as UTF-8"):
        read_sentences(path)
