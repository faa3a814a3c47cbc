"""Kinds of files by the endings of their names."""

from __future__ import annotations

import posixpath

_COMMON = "wav flac ogg oga opus mp3 m4a m4b mp4 aac webm mka mkv aiff aif aifc"
_RARE = "au snd caf w64 rf64 wma amr sph mp2 mpga mov 3gp wv ape tta"
AUDIO_SUFFIXES = frozenset(f".{name}" for name in f"{_COMMON} {_RARE}".split())
"""Endings of names of audio files; the contents decide later whether they are."""
MANIFEST_SUFFIXES = frozenset([".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet", ".srt"])
"""Endings of names of manifests; a manifest that no layout reads is reported."""


def suffix_of(name: str) -> str:
    """Lower-case ending of a name, with the dot; empty if it has none."""
    return posixpath.splitext(name)[1].lower()


def is_audio_name(name: str) -> bool:
    """Whether the ending says audio."""
    return suffix_of(name) in AUDIO_SUFFIXES


def stem_of(name: str) -> str:
    """A name without an ending that says audio."""
    return posixpath.splitext(name)[0] if is_audio_name(name) else name


def last_stem_of(name: str) -> str:
    """The last part of a name, without an ending that says audio."""
    return stem_of(posixpath.basename(name))
