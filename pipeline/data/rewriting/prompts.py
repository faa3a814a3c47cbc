"""Prompts: of a language model that rewrites a description, and of a captioner.

The transcript is never part of a prompt, so no model can change, translate or complete it. Texts of
corpora enter as notes on single lines, marked as notes.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from pipeline.data.descriptions.facts import Facts
from pipeline.data.descriptions.grammar import pick
from pipeline.data.descriptions.language_names import language_name
from pipeline.data.rewriting.chat import ChatRequest, SentAudio
from pipeline.data.rewriting.settings import CaptionSettings, RewriteSettings

_REWRITE = """\
You word descriptions of audio clips for a model that makes audio from text. You get notes on one \
clip and a draft. Write one description of the clip in the style and the language asked for.
Rules:
- Say only what notes and draft say. Add no sounds, instruments, persons, places, feelings or \
numbers. You may leave things out, but never what the clip is or who speaks or sings.
- Never make up words that somebody says, and quote nothing but a title given in the notes.
- One paragraph of plain text, at most {max_words} words: no markup, no lists, no line breaks.
- Answer with the description alone, without any remark."""
_CAPTION = """\
You describe audio clips for a model that makes audio from text. Say what is heard in the clip, \
its character and how it goes on, in English, in one or two plain sentences of at most {max_words} \
words. If somebody speaks or sings, say how it sounds and not which words are used. No markup, no \
line breaks, no remark: answer with the description alone."""
_STYLES = (
    "one short sentence", "one long sentence", "two or three sentences", "key words with commas",
    "a request to somebody who makes sounds", "the dry words of an archive's catalogue",
    "what a friend would say", "the words of a sound designer", "an order of at most ten words",
    "beginning with how it was recorded or how loud it is, if that is known",
    "beginning with the most striking quality", "the words of a critic, without judging",
    "simple words for a child", "a caption below a picture", "the note of a radio producer",
    "as an answer to the question what one hears",
)  # fmt: skip
_LABELS = {
    "person": "who", "person_sex": "sex", "language": "language", "pitch": "pitch",
    "pace": "pace", "tone": "intonation", "pauses": "pauses", "recording": "recording",
    "level": "loudness", "colour": "timbre", "tempo": "tempo", "bpm": "beats",
    "dynamics": "dynamics", "trend": "course of the level", "activity": "density of events",
    "stereo": "stereo image", "tonality": "pitch", "title": "title",
    "source": "source", "labels": "labels", "key": "key",
    "room": "room",
}  # fmt: skip
"""Slots of the facts that become notes, and their names in the notes."""


def notes_of(facts: Facts) -> list[str]:
    """The facts of a clip, one line each."""
    lines = [f"kind: {facts.modality}"]
    lines += [
        f"{label}: {facts.slots[slot][0]}"
        for slot, label in _LABELS.items()
        if facts.slots.get(slot)
    ]
    return lines + [f"caption: {caption}" for caption in facts.captions]


def rewrite_request(
    facts: Facts,
    draft: str,
    *,
    language: str,
    seed: str,
    max_words: int,
    settings: RewriteSettings,
) -> ChatRequest:
    """The request to rewrite one text.

    Args:
        facts: Facts of the clip.
        draft: Composed text, which stays if no completion is usable.
        language: BCP 47 tag of the language to write in.
        seed: Seed of the style.
        max_words: Number of words of the longest description.
        settings: The model's settings.
    """
    style = pick(_STYLES, random.Random(seed))
    lines = [
        "Notes:",
        *(f"- {note}" for note in notes_of(facts)),
        f"Draft: {draft}",
        f"Style: {style}",
        f"Language: {language_name(language) or language}",
    ]
    return ChatRequest(
        messages=(
            {"role": "system", "content": _REWRITE.format(max_words=max_words)},
            {"role": "user", "content": "\n".join(" ".join(line.split()) for line in lines)},
        ),
        temperature=settings.temperature,
        max_tokens=settings.max_tokens,
        extra=settings.extra,
    )


def caption_request(
    clip: Mapping[str, Any], audio: SentAudio, *, max_words: int, settings: CaptionSettings
) -> ChatRequest:
    """The request to caption one clip.

    Args:
        clip: Row of `clips/`.
        audio: Audio of the clip.
        max_words: Number of words of the longest caption.
        settings: The model's settings.
    """
    kind = "a song" if clip["is_singing"] else {"sound": "a sound"}.get(clip["modality"])
    hint = f"The clip is {kind or clip['modality']}. Describe it."
    return ChatRequest(
        messages=(
            {"role": "system", "content": _CAPTION.format(max_words=max_words)},
            {"role": "user", "content": hint},
        ),
        temperature=settings.temperature,
        max_tokens=settings.max_tokens,
        extra=settings.extra,
        audio=audio,
    )
