"""Reason codes of rejects, and the functions that make a reject row."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from pipeline.data.schema import Reject

MAX_DETAIL = 500
"""Characters of `Reject.detail`; longer ones are cut."""


class Reason(StrEnum):
    """Codes of `Reject.reason`; the values are stored, so they are never renamed."""

    # The corpus as found on disk
    BAD_NAME = "bad_name"
    """A file name that the layout cannot read, or that is not valid Unicode."""
    NOT_A_FILE = "not_a_file"
    """A dangling link, a socket, a directory that cannot be listed."""
    UNREFERENCED = "unreferenced"
    """Audio inside a corpus that no row of its manifest names."""
    UNCLAIMED = "unclaimed"
    """A manifest that no layout reads."""
    MISSING_MODALITY = "missing_modality"
    """A clip that nothing identifies as speech, sound or music."""

    # Manifests
    MALFORMED = "malformed"
    """A row, file or value that does not follow its format."""
    EMPTY_MANIFEST = "empty_manifest"
    """A manifest without any row."""
    ENCODING = "encoding"
    """Text that is not UTF-8, or holds NUL."""
    MISSING_COLUMN = "missing_column"
    """A manifest without a column that its layout needs."""
    MISSING_VALUE = "missing_value"
    """A row without a value that its layout needs."""
    MISSING_AUDIO = "missing_audio"
    """A row whose audio file is not there."""
    AMBIGUOUS_AUDIO = "ambiguous_audio"
    """A row whose audio could be several files."""
    OUTSIDE_CORPUS = "outside_corpus"
    """A row that names a file outside the corpus folder."""
    DUPLICATE_ID = "duplicate_id"
    """A clip that is described twice in the same way."""
    CONFLICT = "conflict"
    """A clip or key that is described twice in different ways."""
    BAD_SPAN = "bad_span"
    """A span that ends before it starts, is not finite, negative, or overlaps another cue."""

    # Audio
    UNREADABLE = "unreadable"
    """No decoder reads the file, or its header is absurd."""
    EMPTY_AUDIO = "empty_audio"
    """A file without samples."""
    TRUNCATED = "truncated"
    """Audio that ends before its transcript does."""
    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"
    SILENT = "silent"
    CLIPPED = "clipped"
    NON_FINITE = "non_finite"
    """NaN or infinite samples."""
    OUT_OF_RANGE = "out_of_range"
    """Float samples far outside [-1, 1]."""
    SPAN_OUTSIDE_AUDIO = "span_outside_audio"
    """A span that begins or ends beyond the end of its file."""
    WRONG_DURATION = "wrong_duration"
    """Audio shorter than the corpus says, with a transcript that therefore cannot be trusted."""
    TRANSCRIPT_TOO_LONG = "transcript_too_long"
    """A transcript with more words than can be spoken in the duration."""
    LANGUAGE_MISMATCH = "language_mismatch"
    """A transcript that is plainly in another language than its tag says."""
    NARROW_BANDWIDTH = "narrow_bandwidth"
    """Audio that ends far below half its sample rate: it was upsampled."""
    DUPLICATE_AUDIO = "duplicate_audio"
    """A clip with the same recording as another one, which is kept."""
    EVALUATION_LEAK = "evaluation_leak"
    """A clip of an evaluation set, which no model may be trained on."""

    # Later stages
    WORKER_DIED = "worker_died"
    """The clip killed the process that worked on it."""
    ENCODER_FAILED = "encoder_failed"
    """The codec refused the clip or gave latents that are not finite."""
    NO_LATENTS = "no_latents"
    """The clip was rejected when it was encoded; the reason is in the rejects of `latents/`."""
    NO_DESCRIPTION = "no_description"
    """A clip without any fact that could be put into words."""


def reject(
    reason: Reason,
    detail: str,
    *,
    corpus: str,
    stage: str = "ingest",
    uri: str = "",
    clip_id: str | None = None,
    line: int | None = None,
    field: str | None = None,
) -> Reject:
    """A reject row with its detail on one printable line of at most `MAX_DETAIL` characters."""
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in detail)
    if len(text) > MAX_DETAIL:
        text = text[: MAX_DETAIL - 3] + "..."
    return Reject(
        stage=stage,
        corpus=corpus,
        reason=str(reason),
        detail=text,
        uri=uri,
        clip_id=clip_id,
        line=line,
        field=field,
    )


def reject_clip(clip: Mapping[str, Any], reason: str, detail: str, stage: str = "ingest") -> Reject:
    """The reject row of a clip.

    Args:
        clip: Its row, with corpus, uri and clip_id.
        reason: A `Reason`, or a fault of audio, which has the same codes.
        detail: The value received, the limit, and the remedy.
        stage: Stage that refuses it.
    """
    about = {name: clip[name] for name in ("corpus", "uri", "clip_id")}
    return reject(Reason(str(reason)), detail, stage=stage, **about)
