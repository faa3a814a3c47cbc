"""Read speech in the LibriSpeech layout: `speaker/chapter` folders, with or without transcripts."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

from model.text import clean_text
from pipeline.data.corpora.base import CorpusFolder, Place
from pipeline.data.corpora.entries import parsed_lines, rejecting
from pipeline.data.corpora.file_names import last_stem_of
from pipeline.data.corpora.manifests import Line, ManifestError
from pipeline.data.rejects import Reason
from pipeline.data.schema import ClipRow, Reject

SPEAKERS = "SPEAKERS.TXT"
"""Table of the readers at the root."""
_UTTERANCE = re.compile(r"(?P<speaker>\d+)-(?P<chapter>\d+)-\d+")
_TRANSCRIPTS = ".trans.txt"
SEX = {"F": "female", "M": "male"}
"""Sex by the letter in tables of readers."""
SUBSET_SPLITS = {"train": "train", "dev": "validation", "test": "test"}
"""First word of the name of a subset, and the split that it is."""


@dataclass
class Readers:
    """Facts of the table of readers, by the reader's id."""

    sex: dict[str, str | None] = field(default_factory=dict)
    subset: dict[str, str] = field(default_factory=dict)


class LibriSpeech:
    """`<subset>/<speaker>/<chapter>/<id>.flac` with `.trans.txt`, and `SPEAKERS.TXT` at the root.

    Audio without a transcript becomes an untranscribed clip. The subset decides the split, as
    the corpus declares it.
    """

    layout = "librispeech"

    def matches(self, folder: CorpusFolder) -> bool:
        """Whether this is the root: the table of readers, or transcripts two folders down."""
        if not any(_UTTERANCE.fullmatch(last_stem_of(name)) for name in folder.audio):
            return False
        if SPEAKERS in folder.files:
            return True
        is_inside = folder.exists_above(SPEAKERS)
        depths = {name.count("/") for name in folder.names if name.endswith(_TRANSCRIPTS)}
        return 2 in depths and not is_inside

    def read(self, folder: CorpusFolder) -> Iterator[ClipRow | Reject]:
        """Every line of every transcript, then the audio that none of them names."""
        readers = Readers()
        if SPEAKERS in folder.files:
            yield from read_readers(folder, SPEAKERS, readers)
        used: set[str] = set()
        for name in folder.names:
            if name.endswith(_TRANSCRIPTS):
                parse = partial(_utterance, readers=readers, used=used)
                yield from parsed_lines(folder, name, parse)
        for audio in folder.audio:
            if audio not in used:
                folder.claim(audio)
                yield _clip(folder, readers, audio, Place(audio), None)


def read_readers(folder: CorpusFolder, name: str, readers: Readers) -> Iterator[Reject]:
    """Fill in the readers of a table `id | F or M | subset | minutes | name`; claims it."""
    yield from filter(None, parsed_lines(folder, name, partial(_add_reader, readers=readers)))


@rejecting
def _add_reader(_folder: CorpusFolder, _place: Place, line: Line, *, readers: Readers) -> None:
    if line.text.startswith(";"):
        return
    cells = [cell.strip() for cell in line.text.split("|", 4)]
    if len(cells) < 3 or cells[1] not in SEX:
        detail = f"not 'id | F or M | subset | ...': {line.text[:60]!r}"
        raise ManifestError(Reason.MALFORMED, detail)
    readers.sex[cells[0]] = SEX[cells[1]]
    readers.subset[cells[0]] = cells[2]


@rejecting
def _utterance(
    folder: CorpusFolder, place: Place, line: Line, *, readers: Readers, used: set[str]
) -> ClipRow | Reject:
    utterance, _, text = line.text.strip().partition(" ")
    chapter = posixpath.basename(place.manifest).removesuffix(_TRANSCRIPTS)
    if not _UTTERANCE.fullmatch(utterance):
        detail = f"the line does not begin with an utterance id: {line.text[:60]!r}"
        raise ManifestError(Reason.MALFORMED, detail)
    if not utterance.startswith(f"{chapter}-"):
        raise ManifestError(Reason.MALFORMED, f"{utterance} does not belong to chapter {chapter}")
    try:
        audio, _ = folder.find_audio(posixpath.join(posixpath.dirname(place.manifest), utterance))
    except ManifestError:
        if text.strip():
            raise
        detail = f"{utterance} has no text and no audio"
        raise ManifestError(Reason.MISSING_VALUE, detail) from None
    used.add(audio)
    transcript, note = clean_text(text)
    if not transcript:
        raise ManifestError(Reason.MISSING_VALUE, f"{utterance} has no text")
    return _clip(folder, readers, audio, place, transcript, note)


def _clip(
    folder: CorpusFolder,
    readers: Readers,
    audio: str,
    place: Place,
    transcript: str | None,
    note: str | None = None,
) -> ClipRow | Reject:
    match = _UTTERANCE.fullmatch(last_stem_of(audio))
    if match is None:
        return folder.reject(
            Reason.BAD_NAME, f"{last_stem_of(audio)!r} is not speaker-chapter-utterance", audio
        )
    speaker = match["speaker"]
    top = audio.partition("/")[0] if "/" in audio else readers.subset.get(speaker, "")
    return folder.clip(
        match[0],
        audio,
        modality="speech",
        place=place,
        transcript=transcript,
        speaker=speaker,
        speaker_sex=readers.sex.get(speaker),
        language="en",
        licence="CC-BY-4.0",
        split=SUBSET_SPLITS.get(top.partition("-")[0]),
        notes=(note,) if note else (),
    )
