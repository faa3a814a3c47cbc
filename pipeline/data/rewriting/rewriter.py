"""Rewriting and captioning by a language model: every completion is checked and counted.

A text without a usable completion falls back to its template.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import soundfile

from pipeline.audio.files import read_audio, resample
from pipeline.data.descriptions.facts import Facts
from pipeline.data.rewriting.cache import ReplyCache, Usage, ask
from pipeline.data.rewriting.chat import ChatModel, Reply, SentAudio, Unanswered
from pipeline.data.rewriting.prompts import caption_request, notes_of, rewrite_request
from pipeline.data.rewriting.settings import CaptionSettings, RewriteSettings
from pipeline.data.rewriting.validation import Invalid, Limits, check
from pipeline.settings import digest_of

FELL_BACK = "fell_back"
"""Second part of the key under which unused texts are counted; the third is the reason."""


@dataclass
class Tally:
    """Outcomes of one kind of request, as the keys of a unit's totals.

    Attributes:
        kind: rewrite or caption.
        counts: Number of texts by key.
    """

    kind: str
    counts: Counter[str] = field(default_factory=Counter)

    def used(self) -> None:
        """Count a completion that became a text."""
        self.counts[f"{self.kind}/used"] += 1

    def fell_back(self, reason: str) -> None:
        """Count a text that keeps its template, or a clip that gets no caption."""
        self.counts[f"{self.kind}/{FELL_BACK}/{reason}"] += 1


@dataclass
class Draft:
    """The texts of one clip, some of which are to be rewritten.

    Attributes:
        clip: Row of `clips/`.
        facts: Facts of the clip.
        texts: Composed texts; rewritten ones replace them.
        source: caption, audio_caption or template; rewritten once any text is.
        seed: Seed of the styles.
    """

    clip: Mapping[str, Any]
    facts: Facts
    texts: list[str]
    source: str
    seed: str


def rewrite(
    drafts: Sequence[Draft],
    model: ChatModel,
    cache: ReplyCache,
    settings: RewriteSettings,
    *,
    max_words: int,
    usage: Usage,
) -> Counter[str]:
    """Replace the last texts of every draft by the model's completions where these are usable.

    Args:
        drafts: Drafts, which are changed in place.
        model: Language model.
        cache: Cache of its completions.
        settings: Settings of rewriting.
        max_words: Number of words of the longest text.
        usage: Counts that are increased.

    Returns:
        Outcomes by key; see `Tally`.
    """
    places = [
        (draft, index)
        for draft in drafts
        for index in range(max(0, len(draft.texts) - settings.texts_per_clip), len(draft.texts))
    ]
    requests = [
        rewrite_request(
            draft.facts,
            draft.texts[index],
            language=_language(draft, settings),
            seed=f"{draft.seed}\n{index}",
            max_words=max_words,
            settings=settings,
        )
        for draft, index in places
    ]
    tally = Tally("rewrite")
    answers = ask(model, cache, requests, usage)
    for (draft, index), answer in zip(places, answers, strict=True):
        limits = Limits(
            language=_language(draft, settings),
            min_words=settings.min_words,
            max_words=max_words,
            known="\n".join([*notes_of(draft.facts), draft.texts[index]]),
        )
        text, reason = _usable(answer, limits, draft)
        if reason is not None:
            tally.fell_back(reason)
            continue
        draft.texts[index], draft.source = text, "rewritten"
        tally.used()
    return tally.counts


def _usable(
    answer: Reply | Unanswered, limits: Limits, draft: Draft
) -> tuple[str, Unanswered | Invalid | None]:
    """The text of a completion, and the reason why it is not usable, if there is one."""
    if not isinstance(answer, Reply):
        return "", answer
    text, invalid = check(answer, limits, draft.clip)
    if invalid is None and text in draft.texts:
        invalid = Invalid.DUPLICATE
    return text, invalid


def _language(draft: Draft, settings: RewriteSettings) -> str:
    return (draft.clip["language"] or "en") if settings.language == "clip" else "en"


def caption(
    clips: Sequence[Mapping[str, Any]],
    model: ChatModel,
    cache: ReplyCache,
    settings: CaptionSettings,
    *,
    max_words: int,
    usage: Usage,
) -> tuple[dict[str, str], Counter[str]]:
    """Caption the clips that the settings select.

    Args:
        clips: Rows of `clips/`.
        model: Captioner; audio is read only for completions that the cache does not have.
        cache: Cache of its completions.
        settings: Settings of captioning.
        max_words: Number of words of the longest caption.
        usage: Counts that are increased.

    Returns:
        Captions by clip id, of clips with a usable one, and outcomes by key.
    """
    heard = [
        clip
        for clip in clips
        if clip["modality"] in settings.modalities
        and not (settings.only_missing and clip["captions"])
    ]
    requests = [
        caption_request(clip, sent_audio(clip, settings), max_words=max_words, settings=settings)
        for clip in heard
    ]
    tally = Tally("caption")
    captions: dict[str, str] = {}
    for clip, answer in zip(heard, ask(model, cache, requests, usage), strict=True):
        if not isinstance(answer, Reply):
            tally.fell_back(answer)
            continue
        limits = Limits(
            language="en", min_words=settings.min_words, max_words=max_words, known=None
        )
        text, invalid = check(answer, limits, clip)
        if invalid is not None:
            tally.fell_back(invalid)
            continue
        captions[clip["clip_id"]] = text
        tally.used()
    return captions, tally.counts


def sent_audio(clip: Mapping[str, Any], settings: CaptionSettings) -> SentAudio:
    """The start of a clip as 16-bit mono WAV, named by the file's content and the span."""
    start_s = clip["start_s"]
    is_long = clip["duration_s"] > settings.max_s
    end_s = (start_s or 0.0) + settings.max_s if is_long else clip["end_s"]

    def read() -> bytes:
        """Decode, mix to mono and resample; called only if the audio is sent."""
        audio = read_audio(clip["uri"], start_s, end_s)
        mono = audio.waveform.mean(axis=0, keepdims=True)
        waveform = resample(mono, audio.sample_rate, settings.sample_rate)
        stream = io.BytesIO()
        soundfile.write(stream, waveform.T, settings.sample_rate, format="WAV", subtype="PCM_16")
        return stream.getvalue()

    name = [clip["content_sha256"], start_s, end_s, settings.sample_rate, "mono PCM_16"]
    return SentAudio(digest_of(name), read, min(clip["duration_s"], settings.max_s))
