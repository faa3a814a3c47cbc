"""Rows and columns of what the data stages read and write."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from typing import Any

import pyarrow as pa

SCHEMA_VERSION = 1
"""Version of the columns and their meaning; readers refuse other versions."""

SPLITS = ("train", "validation", "test")
"""Split names, in the order of the hash ranges that assign them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipRow:
    """One clip as a corpus describes it, in the one form every later stage reads.

    A clip is a file, or a span of one. Fields that a corpus does not give are None or empty.
    """

    clip_id: str
    """Unique and stable: `<corpus>/<key inside the corpus>`."""
    corpus: str
    """Name of the corpus."""
    uri: str
    """Audio file: absolute path or URI; `archive.tar#member` inside a tar."""
    modality: str
    """speech, sound or music."""
    start_s: float | None = None
    """Start of the span, seconds; None is the whole file."""
    end_s: float | None = None
    """End of the span, seconds."""
    declared_duration_s: float | None = None
    """Duration that the corpus states, checked against the audio, seconds."""
    language: str | None = None
    """BCP 47 tag of speech or singing, lower case."""
    transcript: str | None = None
    """Words spoken or sung, verbatim."""
    captions: tuple[str, ...] = ()
    """Free descriptions written for the clip."""
    tags: tuple[str, ...] = ()
    """Class labels, instruments, styles."""
    is_singing: bool = False
    """Whether the transcript is sung."""
    speaker: str | None = None
    """`<corpus>/<speaker>`; same string, same voice."""
    speaker_sex: str | None = None
    """female, male or None."""
    title: str | None = None
    """Title of the work."""
    licence: str | None = None
    """SPDX id where there is one."""
    attribution: str | None = None
    """Author that the licence asks to name."""
    split: str | None = None
    """Split the corpus itself declares; None leaves it to the hash."""
    notes: tuple[str, ...] = ()
    """Warnings of the adapter that did not cost the clip."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reject:
    """An item that was read and not kept, with the reason."""

    stage: str
    """ingest, encode, describe or shard."""
    corpus: str
    """Name of the corpus."""
    reason: str
    """A code of `pipeline.data.rejects.Reason`."""
    detail: str
    """The value received, the limit, and the remedy; at most 500 characters."""
    uri: str = ""
    """File concerned: audio, or the manifest of a bad row."""
    clip_id: str | None = None
    """Clip concerned, where it got as far as an id."""
    line: int | None = None
    """Line of the manifest, counted from 1."""
    field: str | None = None
    """Column or key of the manifest."""


_STRINGS = pa.list_(pa.string())

_CLIP_TYPES = {
    "start_s": pa.float64(),
    "end_s": pa.float64(),
    "declared_duration_s": pa.float64(),
    "captions": _STRINGS,
    "tags": _STRINGS,
    "notes": _STRINGS,
    "is_singing": pa.bool_(),
}

CLIPS = pa.schema(
    [(item.name, _CLIP_TYPES.get(item.name, pa.string())) for item in fields(ClipRow)]
    + [
        ("num_samples", pa.int64()),
        ("sample_rate", pa.int32()),
        ("num_channels", pa.int32()),
        ("duration_s", pa.float64()),
        ("content_sha256", pa.string()),
        ("fingerprint", pa.string()),
        ("acoustic", pa.binary()),
    ]
)
"""Rows of `clips/`: a `ClipRow` and what decoding it showed. `split` is filled in; `num_samples`
counts the clip's own span at the file's own rate; `content_sha256` is of the file's bytes;
`fingerprint` is of the samples, `acoustic` of what is heard."""

REJECTS = pa.schema(
    [(item.name, pa.int64() if item.name == "line" else pa.string()) for item in fields(Reject)]
)
"""Rows of `rejects/`, the same in every stage."""

REMOVED = pa.schema([("clip_id", pa.string()), ("reason", pa.string()), ("twin", pa.string())])
"""Rows of `removed/`: scanned clips that are removed because of others; `twin` is the clip, or the
evaluation set and its clip, that one repeats, and None where a list names it."""

DESCRIPTIONS = pa.schema(
    [
        ("clip_id", pa.string()),
        ("descriptions", _STRINGS),
        ("transcript", pa.string()),
        ("language", pa.string()),
        ("modality", pa.string()),
        ("source", pa.string()),
        ("recipe_digest", pa.string()),
    ]
)
"""Rows of `descriptions/`; `source` is template, caption, audio_caption (a model listened) or
rewritten (a language model worded at least one of them)."""

LATENTS = pa.schema(
    [
        ("clip_id", pa.string()),
        ("key", pa.string()),
        ("shard", pa.string()),
        ("num_frames", pa.int64()),
        ("num_samples", pa.int64()),
        ("mean_offset", pa.int64()),
        ("mean_size", pa.int64()),
        ("log_std_offset", pa.int64()),
        ("log_std_size", pa.int64()),
        ("speaker_embedding", pa.list_(pa.float32())),
        ("attributes", pa.string()),
    ]
)
"""Index of `latents/`; offsets are of the member's payload in the tar, `.npy` files of fp16
`frames latent_dim`; `attributes` is JSON of measured values with units in their names, as
`pipeline.acoustics.attributes` gives them; `num_samples` is at the codec's rate."""

INDEX = pa.schema(
    [
        ("clip_id", pa.string()),
        ("key", pa.string()),
        ("shard", pa.string()),
        ("split", pa.string()),
        ("modality", pa.string()),
        ("corpus", pa.string()),
        ("language", pa.string()),
        ("speaker", pa.string()),
        ("is_singing", pa.bool_()),
        ("has_transcript", pa.bool_()),
        ("num_frames", pa.int64()),
        ("text_bytes", pa.int64()),
        ("mean_offset", pa.int64()),
        ("mean_size", pa.int64()),
        ("log_std_offset", pa.int64()),
        ("log_std_size", pa.int64()),
        ("texts", pa.string()),
        ("json_offset", pa.int64()),
        ("json_size", pa.int64()),
        ("speaker_embedding", pa.list_(pa.float32())),
    ]
)
"""Index of `train-shards/`: where latents and text of each clip lie, and what a sampler needs to
choose. `shard` and the offsets of mean and log_std are those of `latents/`. The JSON object in line
of `texts/<texts>.jsonl` holds descriptions, transcript, language, modality, is_singing, duration_s.
`text_bytes` is the UTF-8 length of the longest rendered prompt."""


def clip_columns(row: ClipRow) -> dict[str, Any]:
    """A clip as the plain values that the `CLIPS` schema takes."""
    values = {item.name: getattr(row, item.name) for item in fields(row)}
    return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}


def clip_from_columns(values: dict[str, Any]) -> ClipRow:
    """Inverse of `clip_columns`; columns that decoding added are dropped."""
    known = {item.name for item in fields(ClipRow)}
    kept: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in values.items()
        if name in known
    }
    return ClipRow(**kept)


def split_of(key: str, validation_share: float, test_share: float) -> str:
    """Split by hash, so that a key never moves.

    Args:
        key: What must stay together: a speaker, a file, or a clip by its id.
        validation_share: Share of the hash range for validation.
        test_share: Share of the hash range for test.
    """
    point = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64
    if point < test_share:
        return "test"
    return "validation" if point < test_share + validation_share else "train"
