"""Description-style texts for clips, composed by grammars that vary their wording."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from pipeline.data.descriptions.facts import CONTENT, Facts, split_sentences
from pipeline.data.descriptions.grammar import Form, Grammar, Sentence, fill, num_subjects, pick
from pipeline.data.descriptions.native import native_grammar
from pipeline.data.word_files import read_words

GRAMMAR_VERSION = 5
"""Version of the wording. Another version writes all texts again."""
_MAX_DRAWS = 12
_KEPT_SHARE = 0.8
_CAPTION_SHARE = 0.6
"""Share of texts after the first that start from a caption, where tags allow others."""
_MIN_CAPTION_WORDS = 4
_WORD = re.compile(r"\w{3,}")

_COVERS = {
    "style": ("style", "pitch"),
    "tags": ("tags", "instruments", "genre", "mood", "kind", "theme", "recording"),
}
_CORE = (*CONTENT, "language", "pronoun", "possessive")
"""Subjects that no text leaves out at random."""
_AFTER_CAPTION = {
    "speech": "speech_after",
    "singing": "song_after",
    "sound": "sound_after",
    "music": "music_after",
}
_WANTED = {
    "speech": (3, 4, 5, 6, 7),
    "singing": (2, 2, 3, 3, 4),
    "sound": (1, 2, 2, 3),
    "music": (2, 3, 3, 4, 5),
}
"""Numbers of facts that a text should state; one is drawn for each text."""


@cache
def grammar_of(kind: str) -> Grammar:
    """The English grammar of a kind of clip: speech, singing, sound or music."""
    rules = read_words(Path(__file__).parent / "rules.yaml")
    return Grammar(rules["shared"] | rules[kind], _COVERS)


def describe_clip(facts: Facts, *, seed: str, count: int, max_words: int) -> tuple[list[str], str]:
    """Different texts for one clip, the first of them its first caption if it has one.

    Args:
        facts: What is known.
        seed: Seed of the wording; the same seed and facts give the same texts.
        count: Texts wanted; fewer come back where the facts allow no more.
        max_words: Longest text.

    Returns:
        The texts, and `caption` or `template`, whichever they start from.
    """
    rng = random.Random(hashlib.sha256(seed.encode()).digest())
    texts = list(facts.captions[:1])
    num_composed = 0
    for draw in range(_MAX_DRAWS * count):
        if len(texts) >= count:
            break
        # Where richer texts are too long or used up, one that says a single thing may do.
        wanted = 1 if 2 * draw >= _MAX_DRAWS * count else None
        if facts.captions and (not facts.has_content or rng.random() < _CAPTION_SHARE):
            text: str | None = _from_caption(facts, rng)
        else:
            # The second is in the language of the speech; the last ones may go to a language model,
            # as drafts for what it writes in English.
            is_native = bool(facts.native) and num_composed == 1
            sentence = compose(facts, rng, wanted=wanted, is_native=is_native)
            text = sentence.text if sentence else None
            num_composed += sentence is not None
        if text is not None and text not in texts and len(text.split()) <= max_words:
            texts.append(text)
    return texts, "caption" if facts.captions else "template"


def compose(
    facts: Facts, rng: random.Random, *, wanted: int | None = None, is_native: bool = False
) -> Sentence | None:
    """One text from a grammar alone, on a random share of the facts.

    Args:
        facts: What is known.
        rng: Source of every choice.
        wanted: Facts that the text should state, if the grammar finds a form for as many; None
            draws their number.
        is_native: Write in the language of the speech; `facts.native` must not be empty.
    """
    known = facts.native if is_native else facts.slots
    grammar = native_grammar(facts.language) if is_native else grammar_of(facts.modality)
    kept_share = _KEPT_SHARE if rng.random() < 0.5 else 1.0
    slots = {
        name: phrases
        for name, phrases in known.items()
        if name.split("_")[0] in _CORE or rng.random() < kept_share
    }
    wanted = wanted or pick(_WANTED[facts.modality], rng)
    start = facts.modality if facts.has_content else "unlabelled"
    best: Form | None = None
    for _ in range(_MAX_DRAWS):
        form = grammar.draw(start, slots, rng)
        if form and (best is None or num_subjects(form) > num_subjects(best)):
            best = form
        if best and num_subjects(best) >= wanted:
            break
    return fill(best, slots, rng) if best else None


def _from_caption(facts: Facts, rng: random.Random) -> str:
    """The beginning of a caption, most often with a measured fact after it."""
    sentences = split_sentences(pick(facts.captions, rng))
    base = _beginning(sentences, 1 + int(rng.random() * len(sentences)))
    if rng.random() < 0.2:
        return base
    told = frozenset(_WORD.findall(" ".join(facts.captions).casefold()))
    slots = {
        name: phrases
        for name, phrases in facts.slots.items()
        if name.split("_")[0] not in facts.told
        and not told.issuperset(_WORD.findall(" ".join(phrases).casefold()))
    }
    after = grammar_of(facts.modality).write(_AFTER_CAPTION[facts.modality], slots, rng)
    return base if after is None else f"{base} {after.text}."


def _beginning(sentences: Sequence[str], count: int) -> str:
    """The first sentences of a caption, more than `count` where these hold very few words."""
    while count < len(sentences) and len(" ".join(sentences[:count]).split()) < _MIN_CAPTION_WORDS:
        count += 1
    return " ".join(sentences[:count])
