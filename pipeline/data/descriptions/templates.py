"""Description-style texts of clips, composed by a grammar so that no two need sound alike."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence

from pipeline.data.descriptions.facts import Facts, split_sentences
from pipeline.data.descriptions.grammar import Form, Grammar, Sentence, fill, num_subjects, pick
from pipeline.data.descriptions.rules import MUSIC, SHARED, SINGING, SOUND, SPEECH

GRAMMAR_VERSION = 4
"""Raised when wording changes, so that texts are written again."""
_MAX_DRAWS = 24
_KEPT_SHARE = 0.8

_COVERS = {"tags": ("tags", "instruments", "genre", "mood")}

GRAMMARS = {
    "speech": Grammar(SHARED | SPEECH),
    "singing": Grammar(SHARED | SINGING, _COVERS),
    "sound": Grammar(SHARED | SOUND),
    "music": Grammar(SHARED | MUSIC, _COVERS),
}
"""One grammar a modality; all write the same kind of text."""
_CORE = ("person", "source", "tags", "language")
"""Subjects that no text is without by chance."""
_AFTER_CAPTION = {
    "speech": "speech_after",
    "singing": "song_after",
    "sound": "sound_after",
    "music": "music_after",
}
_WANTED_SUBJECTS = (1, 2, 2, 3, 3, 4)
"""How much a text should say, drawn anew for each: most say several things."""


def describe_clip(facts: Facts, *, seed: str, count: int, max_words: int) -> tuple[list[str], str]:
    """Different texts for one clip, the first of them its first caption if it has one.

    Args:
        facts: What is known.
        seed: The same seed and facts give the same texts.
        count: Texts wanted; fewer come back where the facts allow no more.
        max_words: Longest text.

    Returns:
        The texts, and `caption` or `template`, whichever they start from.
    """
    rng = random.Random(hashlib.sha256(seed.encode()).digest())
    texts = list(facts.captions[:1])
    for _ in range(_MAX_DRAWS * count):
        if len(texts) >= count:
            break
        text = _draw(facts, rng)
        if text is not None and text not in texts and len(text.split()) <= max_words:
            texts.append(text)
    return texts, "caption" if facts.captions else "template"


def compose(facts: Facts, rng: random.Random) -> Sentence | None:
    """One text from the grammar alone, on a random share of the facts."""
    slots = {
        name: phrases
        for name, phrases in facts.slots.items()
        if rng.random() < _KEPT_SHARE or name.split("_")[0] in _CORE
    }
    # A title stands in only where nothing else says what the clip is.
    if "tags" in slots:
        slots.pop("title", None)
    is_unlabelled = facts.modality == "sound" and "source" not in slots
    start = "unlabelled" if is_unlabelled else facts.modality
    wanted = _WANTED_SUBJECTS[int(rng.random() * len(_WANTED_SUBJECTS))]
    best: Form | None = None
    for _ in range(_MAX_DRAWS):
        form = GRAMMARS[facts.modality].draw(start, slots, rng)
        if form and (best is None or num_subjects(form) > num_subjects(best)):
            best = form
        if best and num_subjects(best) >= wanted:
            break
    return fill(best, slots, rng) if best else None


def _draw(facts: Facts, rng: random.Random) -> str | None:
    kind = rng.random()
    if not facts.captions or kind < 0.4:
        sentence = compose(facts, rng)
        return sentence.text if sentence else None
    sentences = split_sentences(pick(facts.captions, rng))
    base = _begin(sentences, 1 + int(rng.random() * len(sentences)))
    if kind < 0.5:
        return base
    rule = _AFTER_CAPTION[facts.modality]
    after = GRAMMARS[facts.modality].write(rule, facts.slots, rng)
    return base if after is None else f"{base} {after.text}."


def _begin(sentences: Sequence[str], count: int) -> str:
    """The first sentences of a caption, more than `count` where these are a single word."""
    while count < len(sentences) and " " not in " ".join(sentences[:count]):
        count += 1
    return " ".join(sentences[:count])
