"""Which clips a model is measured on: held out from training, the same for a seed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from model.config import MODALITIES
from model.limits import Limits
from pipeline.errors import IncompleteError
from pipeline.evaluation.intelligibility import is_digit
from pipeline.storage import Folder, iter_rows, read_tables

_PREFERENCE = ("test", "validation", "train")
_COLUMNS = ["clip_id", "uri", "start_s", "end_s", "modality", "language", "split", "duration_s"]


@dataclass(frozen=True)
class HeldOutClip:
    """One real clip and the text it is to be made from."""

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


def choose(
    clips: Folder,
    descriptions: Folder,
    *,
    per_modality: int,
    num_digits: int,
    max_duration_s: float,
    seed: int,
) -> list[HeldOutClip]:
    """Clips of every modality, from the test split first, then validation, then training.

    Args:
        clips: A complete `clips/` directory.
        descriptions: A complete `descriptions/` directory over it.
        per_modality: Clips of each modality that are not single digits.
        num_digits: Further English speech clips whose transcript is one digit word.
        max_duration_s: Longer clips are left out, and those too short to be asked for.
        seed: Changes the choice.

    Raises:
        IncompleteError: If a directory is not complete or no clip qualifies.
    """
    texts = _texts(descriptions)
    chosen: list[HeldOutClip] = []
    candidates = _candidates(clips, texts, max_duration_s, seed)
    for modality in MODALITIES:
        ordinary = [c for c in candidates if c.modality == modality and not _is_english_digit(c)]
        chosen += ordinary[:per_modality]
    chosen += [clip for clip in candidates if _is_english_digit(clip)][:num_digits]
    if not chosen:
        raise IncompleteError(
            f"{clips.uri} has no described clip of at most {max_duration_s} s to evaluate on"
        )
    return chosen


def _texts(descriptions: Folder) -> dict[str, tuple[str, str | None]]:
    descriptions.card("describe")
    parts = descriptions.child("parts")
    table = read_tables(parts, parts.files(".parquet"), ["clip_id", "descriptions", "transcript"])
    return {row["clip_id"]: (row["descriptions"][0], row["transcript"]) for row in iter_rows(table)}


def _candidates(
    clips: Folder, texts: dict[str, tuple[str, str | None]], max_duration_s: float, seed: int
) -> list[HeldOutClip]:
    clips.card("ingest")
    parts = clips.child("parts")
    table = read_tables(parts, parts.files(".parquet"), _COLUMNS)
    shortest_s = Limits().min_duration_s  # no request may ask for less
    found = [
        _clip(row, texts[row["clip_id"]])
        for row in iter_rows(table)
        if row["clip_id"] in texts and shortest_s <= row["duration_s"] <= max_duration_s
    ]

    def order(clip: HeldOutClip) -> tuple[int, str]:
        lot = hashlib.sha256(f"{seed}/{clip.clip_id}".encode()).hexdigest()
        return _PREFERENCE.index(clip.split), lot

    return sorted(found, key=order)


def _clip(row: dict[str, Any], text: tuple[str, str | None]) -> HeldOutClip:
    return HeldOutClip(**{**row, "description": text[0], "transcript": text[1]})


def _is_english_digit(clip: HeldOutClip) -> bool:
    return (
        clip.modality == "speech"
        and (clip.language or "").startswith("en")
        and clip.transcript is not None
        and is_digit(clip.transcript)
    )
