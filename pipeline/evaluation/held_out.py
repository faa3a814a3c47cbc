"""The held-out clips that a model is measured on; the same seed gives the same clips."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from model.bundle.limits import Limits
from model.config import MODALITIES
from pipeline.clip_tables import ClipTables
from pipeline.errors import IncompleteError
from pipeline.evaluation.intelligibility import is_digit
from pipeline.storage import Folder, iter_rows, read_tables

logger = logging.getLogger(__name__)

TRAINING = "train"
"""The split that models and codecs are trained on."""
SPLITS = ("test", "validation", TRAINING)
"""Splits in the order in which they are preferred."""
COUNTS = ("described", *SPLITS, "in_training", "too_long", "too_short", "not_needed")
"""Counts of each modality: all clips, those chosen by split, and the others by reason."""
_COLUMNS = (
    "clip_id", "uri", "start_s", "end_s", "modality", "language", "is_singing", "split",
    "duration_s", "corpus", "speaker", "tags", "content_sha256",
)  # fmt: skip
_REMEDIES = {
    "too_long": "raise max_duration_s",
    "in_training": "raise validation_share of ingest and train again, or set fill_from_training",
    "too_short": "add longer clips",
    "not_needed": "raise num_digits",
}


@dataclass(frozen=True)
class HeldOutClip:
    """One real clip and the text to generate it from."""

    clip_id: str
    uri: str
    start_s: float | None
    end_s: float | None
    duration_s: float
    modality: str
    language: str | None
    split: str
    description: str
    transcript: str | None
    is_singing: bool = False
    corpus: str = ""
    speaker: str | None = None
    tags: tuple[str, ...] = ()
    content_sha256: str | None = None


def cluster_of(clip: HeldOutClip) -> str:
    """What makes clips depend on each other: their speaker, or else the recording they are of."""
    return f"speaker {clip.speaker}" if clip.speaker else f"recording {clip.uri}"


@dataclass(frozen=True)
class Choice:
    """The chosen clips, and the counts of the others.

    Attributes:
        clips: The chosen clips.
        counts: `COUNTS` of each modality that the data has; the first is the sum of the others.
    """

    clips: list[HeldOutClip]
    counts: dict[str, dict[str, int]]


def choose(
    clips: Folder,
    descriptions: Folder,
    *,
    per_modality: int,
    num_digits: int,
    max_duration_s: float,
    seed: int,
    fill_from_training: bool = False,
    per_corpus: int | None = None,
) -> Choice:
    """Clips of every modality, from the test split first, then validation.

    The numbers of chosen and left-out clips are logged, with a warning if no clip is left.

    Args:
        clips: A complete `clips/` directory.
        descriptions: A complete `descriptions/` directory over it.
        per_modality: Clips of each modality that are not single digits.
        num_digits: Further English speech clips whose transcript is one digit word.
        max_duration_s: Longest clip, seconds; clips too short for a request are left out too.
        seed: Seed of the choice.
        fill_from_training: Whether training clips are used too if too few are held out.
        per_corpus: Clips of each corpus, in place of `per_modality`.

    Raises:
        IncompleteError: If a directory is not complete or no clip qualifies.
    """
    texts = _texts(descriptions)
    candidates, counts = _candidates(clips, texts, max_duration_s, fill_from_training)
    candidates.sort(key=lambda clip: _order(clip, seed))
    chosen: list[HeldOutClip] = []
    for modality in MODALITIES:
        ordinary = [c for c in candidates if c.modality == modality and not _is_english_digit(c)]
        if per_corpus is None:
            chosen += ordinary[:per_modality]
        else:
            for corpus in sorted({clip.corpus for clip in ordinary}):
                chosen += [clip for clip in ordinary if clip.corpus == corpus][:per_corpus]
    chosen += [clip for clip in candidates if _is_english_digit(clip)][:num_digits]
    for clip in chosen:
        counts[clip.modality][clip.split] += 1
        counts[clip.modality]["not_needed"] -= 1
    said = [describe_counts(name, count, max_duration_s) for name, count in counts.items()]
    if not chosen:
        said = said or ["no clip has a description; run `audiocalm describe` again"]
        raise IncompleteError(f"{clips.uri} has no clip to evaluate on. {'. '.join(said)}")
    for line, count in zip(said, counts.values(), strict=True):
        logger.log(logging.INFO if num_chosen(count) else logging.WARNING, "%s", line)
    return Choice(chosen, counts)


def described_clips(
    clips: Folder, descriptions: Folder, max_duration_s: float
) -> list[HeldOutClip]:
    """Every described clip of all splits; longer ones are cut at `max_duration_s`.

    Raises:
        IncompleteError: If a directory is not complete.
    """
    texts = _texts(descriptions)
    table = ClipTables.of(clips).read_all(list(_COLUMNS))
    found = [
        _clip(row, texts[row["clip_id"]]) for row in iter_rows(table) if row["clip_id"] in texts
    ]
    return [_cut(clip, max_duration_s) for clip in found]


def _cut(clip: HeldOutClip, max_duration_s: float) -> HeldOutClip:
    if clip.duration_s <= max_duration_s:
        return clip
    end_s = (clip.start_s or 0.0) + max_duration_s
    return dataclasses.replace(clip, end_s=end_s, duration_s=max_duration_s)


def num_chosen(count: Mapping[str, int]) -> int:
    """Clips chosen of a modality, from its `COUNTS`."""
    return sum(count[split] for split in SPLITS)


def describe_counts(modality: str, count: Mapping[str, int], max_duration_s: float) -> str:
    """Message about chosen and left-out clips of a modality, with a remedy if none was chosen.

    Args:
        modality: Name of the modality.
        count: Value of each of the modality's `COUNTS`.
        max_duration_s: Limit of the choice, seconds.
    """
    reasons = {
        "in_training": "of the training split",
        "too_long": f"longer than {max_duration_s:g} s",
        "too_short": f"shorter than {Limits().min_duration_s:g} s",
        "not_needed": "not needed" if num_chosen(count) else "single digits",
    }
    left_out = ", ".join(f"{count[name]} {text}" for name, text in reasons.items() if count[name])
    if not num_chosen(count):
        remedies = [text for name, text in _REMEDIES.items() if count[name]]
        return f"{modality}: no clip of {count['described']} ({left_out}): {', or '.join(remedies)}"
    chosen = ", ".join(f"{count[split]} {split}" for split in SPLITS if count[split])
    return f"{modality}: {chosen}" + (f" (left out: {left_out})" if left_out else "")


def _texts(descriptions: Folder) -> dict[str, tuple[str, str | None]]:
    descriptions.card("describe")
    names = descriptions.listed("parts/")
    table = read_tables(descriptions, names, ["clip_id", "descriptions", "transcript"])
    return {row["clip_id"]: (row["descriptions"][0], row["transcript"]) for row in iter_rows(table)}


def _candidates(
    clips: Folder,
    texts: dict[str, tuple[str, str | None]],
    max_duration_s: float,
    fill_from_training: bool,
) -> tuple[list[HeldOutClip], dict[str, dict[str, int]]]:
    """Clips that may be chosen, and the counts of a `Choice` before the choice."""
    table = ClipTables.of(clips).read_all(list(_COLUMNS))
    found: list[HeldOutClip] = []
    counts = {name: dict.fromkeys(COUNTS, 0) for name in MODALITIES}
    for row in iter_rows(table):
        if row["clip_id"] not in texts:
            continue
        fate = _fate(row, max_duration_s, fill_from_training)
        counts[row["modality"]]["described"] += 1
        counts[row["modality"]][fate] += 1
        if fate == "not_needed":
            found.append(_clip(row, texts[row["clip_id"]]))
    return found, {name: count for name, count in counts.items() if count["described"]}


def _fate(row: dict[str, Any], max_duration_s: float, fill_from_training: bool) -> str:
    if row["split"] == TRAINING and not fill_from_training:
        return "in_training"
    if row["duration_s"] < Limits().min_duration_s:  # the shortest request
        return "too_short"
    return "too_long" if row["duration_s"] > max_duration_s else "not_needed"


def _order(clip: HeldOutClip, seed: int) -> tuple[int, str]:
    drawn = hashlib.sha256(f"{seed}/{clip.clip_id}".encode()).hexdigest()
    return SPLITS.index(clip.split), drawn


def _clip(row: dict[str, Any], text: tuple[str, str | None]) -> HeldOutClip:
    values = {**row, "description": text[0], "transcript": text[1]}
    return HeldOutClip(**{**values, "tags": tuple(row["tags"] or ())})


def _is_english_digit(clip: HeldOutClip) -> bool:
    return (
        clip.modality == "speech"
        and (clip.language or "").startswith("en")
        and clip.transcript is not None
        and is_digit(clip.transcript)
    )
