"""Whether a text can be in the language of its tag: by script and by function words.

It answers only where the evidence is strong, and is no language detector: a language that it does
not know, or a short text, is believed.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pipeline.data.word_files import read_words

_MIN_LETTERS = 12
"""Number of letters below which the script of a text is not judged."""
_MIN_SCRIPT_SHARE = 0.9
_MIN_WORDS = 8
"""Number of words below which a text in the right script is not judged."""
_MIN_OTHER_SHARE = 0.35
_TIMES_OWN = 4  # languages share a few words: `was`, `in`, `no`
_MIN_LETTERS_ASKED = 4
_MIN_SCRIPT_SHARE_ASKED = 0.5  # names and titles in another script are allowed
_MIN_WORDS_ASKED = 4
_MIN_OTHER_SHARE_ASKED = 0.25
_TIMES_OWN_ASKED = 2

_WORDS = re.compile(r"[^\W\d_]+")


def language_mismatch(transcript: str, language: str) -> str:
    """Why a transcript cannot be in a language; empty if it can.

    Args:
        transcript: The words.
        language: BCP 47 tag.
    """
    primary, *subtags = language.lower().replace("_", "-").split("-")
    return _foreign_script(transcript, primary, subtags) or _foreign_words(transcript, primary)


def is_other_language(text: str, language: str) -> bool:
    """Whether a text is clearly in another language than the requested one.

    Stricter than `language_mismatch`: short texts are judged too, and romanised ones are not in
    the language. A rejected answer costs nothing, a rejected transcript a clip.

    Args:
        text: What came back.
        language: BCP 47 tag of the requested language.
    """
    primary, *subtags = language.lower().replace("_", "-").split("-")
    scripts = Counter(_script(c) for c in text if c.isalpha())
    allowed = ("LATIN",) if "latn" in subtags else _known()["scripts"].get(primary, ("LATIN",))
    is_judged = primary in _known()["latin"] or primary in _known()["scripts"]
    if not is_judged or scripts.total() < _MIN_LETTERS_ASKED:
        return False
    if sum(scripts[name] for name in allowed) < _MIN_SCRIPT_SHARE_ASKED * scripts.total():
        return True
    words = _WORDS.findall(unicodedata.normalize("NFC", text.lower()))
    if primary not in _function_words() or len(words) < _MIN_WORDS_ASKED:
        return False
    own = _share(words, primary)
    share = max(_share(words, name) for name in _function_words() if name != primary)
    return share >= max(_MIN_OTHER_SHARE_ASKED, _TIMES_OWN_ASKED * own)


def _foreign_script(transcript: str, primary: str, subtags: list[str]) -> str:
    if any(len(subtag) == 4 and subtag.isalpha() for subtag in subtags):
        return ""  # the tag names a script of its own
    allowed = _known()["scripts"].get(primary, ())
    if primary not in _known()["latin"] and not allowed:
        return ""
    scripts = Counter(_script(c) for c in transcript if c.isalpha())
    foreign = Counter(
        {name: n for name, n in scripts.items() if name not in allowed and name != "LATIN"}
    )
    total, count = scripts.total(), foreign.total()
    if total < _MIN_LETTERS or count < _MIN_SCRIPT_SHARE * total:
        return ""
    return f"{count} of {total} letters are {foreign.most_common(1)[0][0].capitalize()}"


def _foreign_words(transcript: str, primary: str) -> str:
    if primary not in _function_words():
        return ""
    words = _WORDS.findall(unicodedata.normalize("NFC", transcript.lower()))
    if len(words) < _MIN_WORDS:
        return ""
    own = _share(words, primary)
    other, share = max(
        ((name, _share(words, name)) for name in _function_words() if name != primary),
        key=lambda item: item[1],
    )
    if share < max(_MIN_OTHER_SHARE, _TIMES_OWN * own):
        return ""
    return (
        f"of {len(words)} words {share:.0%} are function words of {other!r}, {own:.0%} of its own"
    )


def _share(words: list[str], language: str) -> float:
    known = _function_words()[language]
    return sum(word in known for word in words) / len(words)


def _known() -> Mapping[str, Any]:
    table: Mapping[str, Any] = read_words(Path(__file__).with_suffix(".yaml"))
    return table


@cache
def _function_words() -> Mapping[str, frozenset[str]]:
    return {name: frozenset(words) for name, words in _known()["function_words"].items()}


@cache
def _script(letter: str) -> str:
    return unicodedata.name(letter, "?").split(" ")[0].split("-")[0]
