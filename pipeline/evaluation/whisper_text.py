"""Word errors as papers count them: after the text normalisation of Whisper.

`spoken_words` is fairer to numerals. This form is the usual one, so its figures may be compared
with published ones.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

_SPELLING_FILE = "normalizer.json"


def is_available() -> bool:
    """Whether the normaliser and jiwer are installed."""
    return all(importlib.util.find_spec(name) for name in ("transformers", "jiwer"))


def whisper_normalised(text: str, language: str = "en", spelling: Path | None = None) -> str:
    """A text as Whisper's normaliser writes it.

    English loses fillers, brackets and punctuation, contractions are expanded, and numbers become
    digits. Other languages lose punctuation and marks.

    Args:
        text: A transcript, or the text of a recogniser.
        language: BCP 47 tag.
        spelling: File `normalizer.json` of a Whisper model, which maps British to American
            spelling; without it, spelling is unchanged.

    Raises:
        ImportError: If transformers is not installed.

    Source:
        arXiv:2212.04356, appendix C; the implementation is that of transformers.
    """
    return " ".join(_normaliser(language.lower().split("-")[0], spelling)(text).split())


def count_word_errors(
    transcript: str, heard: str, language: str = "en", spelling: Path | None = None
) -> tuple[int, int] | None:
    """Word edits and number of words of the transcript, both after normalisation.

    Args:
        transcript: Text that was to be spoken.
        heard: Text of the recogniser.
        language: BCP 47 tag.
        spelling: See `whisper_normalised`.

    Returns:
        None if the normaliser leaves no word of the transcript.

    Raises:
        ImportError: If transformers or jiwer is not installed.
    """
    import jiwer

    said = whisper_normalised(transcript, language, spelling)
    if not said:
        return None
    found = jiwer.process_words(said, whisper_normalised(heard, language, spelling))
    return found.substitutions + found.insertions + found.deletions, len(said.split())


def spelling_file(folder: Path) -> Path | None:
    """The spelling table of a recogniser's folder; None if it has none."""
    path = folder / _SPELLING_FILE
    return path if path.is_file() else None


@cache
def _normaliser(tag: str, spelling: Path | None) -> Callable[[str], str]:
    from transformers.models.whisper import english_normalizer as whisper

    table: dict[str, str] = {} if spelling is None else json.loads(spelling.read_bytes())
    made: Any = (
        whisper.EnglishTextNormalizer(table)
        if tag == "en"
        else whisper.BasicTextNormalizer(split_letters=tag in ("zh", "ja", "th", "lo", "my"))
    )
    normalise: Callable[[str], str] = made
    return normalise
