"""Sample packs in the layout of Sonic Pi: classes by prefix of the name, sources in a readme."""

from __future__ import annotations

import re
from collections.abc import Iterator

from model.text import clean_text
from pipeline.data.corpora.base import CorpusFolder, Place
from pipeline.data.corpora.file_names import stem_of
from pipeline.data.corpora.manifests import ManifestError
from pipeline.data.schema import ClipRow, Reject

README = "README.md"
"""Lists `:name` and where it came from."""
PREFIXES = {
    "ambi": "ambient",
    "bass": "bass",
    "bd": "bass drum",
    "drum": "drum",
    "elec": "electronic",
    "glitch": "glitch",
    "guit": "guitar",
    "hat": "hi-hat",
    "loop": "loop",
    "misc": "miscellaneous",
    "perc": "percussion",
    "ride": "ride cymbal",
    "sn": "snare drum",
    "tabla": "tabla",
    "vinyl": "vinyl",
}
"""Prefix of a name, in words."""
_ENTRY = re.compile(r"^\*\s*`:(?P<name>\w+)`\s*-\s*(?P<source>.+?)\s*$", re.MULTILINE)
_PREFIX_CREDIT = re.compile(
    r"prefixed with `(?P<prefix>\w+)_`[^.]*?\bby\s+(?P<who>[^.(]+)", re.DOTALL
)


class SamplePack:
    """`<prefix>_<name>.flac` in one folder, and a `README.md` that lists them by name."""

    layout = "sample_pack"

    def matches(self, folder: CorpusFolder) -> bool:
        """Whether the readme lists at least one of the audio files beside it."""
        if README not in folder.files:
            return False
        listed = {match["name"] for match in _ENTRY.finditer(_readme(folder))}
        return any(stem_of(name) in listed for name in folder.files)

    def read(self, folder: CorpusFolder) -> Iterator[ClipRow | Reject]:
        """Every audio file in the folder."""
        text = _readme(folder)
        folder.claim(README)
        sources = {match["name"]: match["source"] for match in _ENTRY.finditer(text)}
        donors = {match["prefix"]: match["who"] for match in _PREFIX_CREDIT.finditer(text)}
        for name in folder.audio:
            if "/" in name:
                continue
            folder.claim(name)
            stem = stem_of(name)
            prefix, _, rest = stem.partition("_")
            words = clean_text(rest.replace("_", " "))[0]
            source = sources.get(stem) or donors.get(prefix)
            yield folder.clip(
                stem,
                name,
                modality=None,
                place=Place(README),
                tags=tuple(filter(None, (PREFIXES.get(prefix, prefix), words))),
                attribution=clean_text(source)[0] if source else None,
                notes=() if source else ("unlisted: the readme does not say where it came from",),
            )


def _readme(folder: CorpusFolder) -> str:
    try:
        return folder.read_bytes(README).decode(errors="replace")
    except ManifestError:
        return ""
