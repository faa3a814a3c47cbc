"""Which answers of a model may become descriptions, and why the others may not."""

from __future__ import annotations

import posixpath
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any

from pipeline.data.descriptions.facts import names_a_file
from pipeline.data.descriptions.language_names import language_names, regional_names
from pipeline.data.rewriting.chat import Reply
from pipeline.data.screening.languages import is_other_language


class Invalid(StrEnum):
    """Why an answer is not used; the template stands in its place."""

    EMPTY = "empty"
    CUT_OFF = "cut_off"
    """Ended by the limit of tokens."""
    NOT_ONE_PARAGRAPH = "not_one_paragraph"
    MARKUP = "markup"
    """Markdown, tags, control tokens or control characters."""
    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"
    META_TALK = "meta_talk"
    """Speaks of the answer or of the task, such as "Here is"."""
    REFUSAL = "refusal"
    LEAK = "leak"
    """Holds a file name, an address, or an identifier of the clip or speaker."""
    INVENTED_QUOTE = "invented_quote"
    """Quotes words that are not in the notes."""
    INVENTED_FACT = "invented_fact"
    """Holds a number, a language or a sex that the notes do not."""
    TRANSCRIPT = "transcript"
    """Holds words of the transcript, which has a place of its own."""
    WRONG_LANGUAGE = "wrong_language"
    DUPLICATE = "duplicate"
    """The clip has this text already."""


@dataclass(frozen=True)
class Limits:
    """What a text must keep to.

    Attributes:
        language: BCP 47 tag of the language it is written in.
        min_words: Shortest text; in scripts without spaces two letters count as a word.
        max_words: Longest text.
        known: Everything that it may say: notes and draft. None if nothing is known, as of a
            clip that a model listened to.
    """

    language: str
    min_words: int
    max_words: int
    known: str | None


_THOUGHT = re.compile(r"^\s*<think>.*?</think>", re.DOTALL)
_OUTER_QUOTES = re.compile(r'^(["“«„])([^"“”«»„]*)(["”»“])$')
_MARKUP = re.compile(
    r"\*\*|__|`|^#|^[-*•] |^\d+[.)] |</?\w[^>]*>|<\||\|>|\[[^\]]*\]|\{|\}|\]\(|\\[nt\"]"
)
_META = re.compile(
    r"^(?:here(?:'s| is| are| you)|(?:sure|certainly|of course|okay|ok|absolutely|great|claro)"
    r"[!,.]|(?:description|caption|output|answer|note|draft|style) ?:|rewritten|revised|"
    r"hier ist|voici|aquí (?:está|tienes)|ecco|aqui está|以下|这是|當然|当然)|"
    r"\b(?:rewrit(?:e|ten|ing)|paraphras\w+|the (?:draft|prompt|instructions?|metadata)|"
    r"(?:given|provided) (?:notes|draft)|"
    r"as (?:requested|instructed)|in the requested|(?:language|ai) model|word count|"
    r"let me know|hope this)\b",
    re.IGNORECASE,
)
_REFUSAL = re.compile(
    r"\b(?:i(?:'m| am) (?:sorry|unable|not able|an ai)|i (?:can(?:no|')t|do not|don't) "
    r"(?:\w+ ){0,2}(?:help|assist|hear|listen|access|have|describe|provide|fulfil|comply)|"
    r"unfortunately|as an ai|es tut mir leid|je suis désolé|lo siento|mi dispiace|"
    r"sinto muito)\b|抱歉|对不起|申し訳",
    re.IGNORECASE,
)
_QUOTED = re.compile(
    r"[\"“„«「『]([^\"“”„«»「」『』]+)[\"”“»」』]|(?<!\w)['\u2018]([^'\u2018\u2019]{2,})['\u2019](?!\w)"
)
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
_SEXED = {
    "female": re.compile(r"\b(?:wom[ae]n|females?|lad(?:y|ies)|girls?|she|her|hers)\b", re.I),
    "male": re.compile(r"\b(?:m[ae]n|males?|gentlem[ae]n|boys?|he|his|him)\b", re.I),
}
_TRANSCRIPT_RUN = 4
_MIN_IDENTIFIER = 4


def check(reply: Reply, limits: Limits, clip: Mapping[str, Any]) -> tuple[str, Invalid | None]:
    """The text of an answer, and why it cannot be used; None if it can.

    Args:
        reply: The answer. A block of thoughts before it and quotes around it are taken off.
        limits: What the text must keep to.
        clip: Row of `clips/`: what must not show through.
    """
    text = _THOUGHT.sub("", reply.text).strip()
    if match := _OUTER_QUOTES.match(text):
        text = match[2].strip()
    if reply.is_cut_off:
        return text, Invalid.CUT_OFF
    plain = text.replace("\u2019", "'")
    for is_so, reason in (
        (not text, Invalid.EMPTY),
        (len(text.splitlines()) != 1, Invalid.NOT_ONE_PARAGRAPH),
        (_has_markup(text), Invalid.MARKUP),
        (bool(_REFUSAL.search(plain)), Invalid.REFUSAL),
        (bool(_META.search(plain)), Invalid.META_TALK),
    ):
        if is_so:
            return text, reason
    text = " ".join(text.split())
    return text, _judge(text, limits, clip)


def _judge(text: str, limits: Limits, clip: Mapping[str, Any]) -> Invalid | None:
    num_words = count_words(text)
    if num_words < limits.min_words:
        return Invalid.TOO_SHORT
    if num_words > limits.max_words:
        return Invalid.TOO_LONG
    if names_a_file(text) or _shows(text, clip):
        return Invalid.LEAK
    if _holds_run_of(text, clip["transcript"] or ""):
        return Invalid.TRANSCRIPT
    if _quotes_what_is_not(text, limits.known or ""):
        return Invalid.INVENTED_QUOTE
    if limits.known is not None and _invents(text, limits.known, limits.language):
        return Invalid.INVENTED_FACT
    return Invalid.WRONG_LANGUAGE if is_other_language(text, limits.language) else None


def count_words(text: str) -> int:
    """Words of a text; where a script has no spaces, two letters count as one."""
    dense = sum(1 for c in text if _is_dense(c))
    spaced = "".join(" " if _is_dense(c) else c for c in text)
    return dense // 2 + sum(1 for word in spaced.split() if re.search(r"\w", word))


def _is_dense(character: str) -> bool:
    name = unicodedata.name(character, "") if ord(character) > 0xE00 else ""
    return name.startswith(("CJK UNIFIED", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER"))


def _has_markup(text: str) -> bool:
    controls = any(unicodedata.category(c) in ("Cc", "Co", "Cn") for c in text if c not in "\n\t")
    return controls or "\ufffd" in text or bool(_MARKUP.search(text))


def _shows(text: str, clip: Mapping[str, Any]) -> bool:
    name = posixpath.basename(clip["uri"] or "").rpartition("#")[2]
    stem = posixpath.splitext(posixpath.basename(name))[0]
    clip_key = (clip["clip_id"] or "").partition("/")[2]
    speaker = (clip["speaker"] or "").partition("/")[2]
    folded = text.casefold()
    for identifier in (stem, clip_key, speaker):
        # A file may be called rain.wav: plain words give nothing away.
        is_code = bool(re.search(r"[\d_/]", identifier)) and len(identifier) >= _MIN_IDENTIFIER
        if is_code and re.search(rf"(?<!\w){re.escape(identifier.casefold())}(?!\w)", folded):
            return True
    return False


def _holds_run_of(text: str, transcript: str) -> bool:
    words, spoken = _words(text), _words(transcript)
    if len(spoken) < _TRANSCRIPT_RUN:
        return False
    runs = {tuple(spoken[i : i + _TRANSCRIPT_RUN]) for i in range(len(spoken) - 3)}
    return any(tuple(words[i : i + _TRANSCRIPT_RUN]) in runs for i in range(len(words) - 3))


def _words(text: str) -> list[str]:
    found: list[str] = []
    for word in re.findall(r"\w+", text.casefold()):
        found += list(word) if _is_dense(word[0]) else [word]
    return found


def _quotes_what_is_not(text: str, known: str) -> bool:
    folded = known.casefold()
    return any(
        (double or single).strip(" .,;!?").casefold() not in folded
        for double, single in _QUOTED.findall(text)
    )


@cache
def _language_name() -> re.Pattern[str]:
    names = {*language_names().values(), *regional_names().values()}
    longest_first = sorted(names, key=len, reverse=True)
    return re.compile(rf"\b(?:{'|'.join(longest_first)})\b")


def _invents(text: str, known: str, language: str) -> bool:
    if set(_NUMBER.findall(text)) - set(_NUMBER.findall(known)):
        return True
    if language.split("-")[0].lower() != "en":
        return False
    names = set(_language_name().findall(text))
    if any(name not in known for name in names):
        return True
    return any(words.search(text) and not words.search(known) for words in _SEXED.values())
