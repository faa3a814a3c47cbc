"""Read speech in the LibriSpeech layout: `speaker/chapter` folders, with or without transcripts."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from model.text import clean_text
from pipeline.data.corpora.base import CorpusFolder, Place
from pipeline.data.corpora.file_names import stem_of
from pipeline.data.corpora.lookup import AudioLookupError
from pipeline.data.corpora.manifests import BadLine, Line, ManifestError
from pipeline.data.rejects import Reason
from pipeline.data.schema import ClipRow, Reject

SPEAKERS = "SPEAKERS.TXT"
"""Table of the readers at the root."""
_UTTERANCE = re.compile(r"(?P<speaker>\d+)-(?P<chapter>\d+)-\d+")
_TRANSCRIPTS = ".trans.txt"
_SEX = {"F": "female", "M": "male"}
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
        if not any(_UTTERANCE.fullmatch(_stem(name)) for name in folder.audio):
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
                folder.claim(name)
                try:
                    yield from _transcripts(folder, readers, name, used)
                except ManifestError as error:
                    yield folder.reject_manifest(error, name)
        for audio in folder.audio:
            if audio not in used:
                folder.claim(audio)
                yield _clip(folder, readers, audio, Place(audio), None)


def read_readers(folder: CorpusFolder, name: str, readers: Readers) -> Iterator[Reject]:
    """Fill in the readers of a table `id | F or M | subset | minutes | name`; claims it."""
    folder.claim(name)
    try:
        lines = list(folder.lines(name))
    except ManifestError as error:
        yield folder.reject_manifest(error, name)
        return
    for line in lines:
        if isinstance(line, BadLine):
            yield folder.reject_line(line, name)
        elif line.text.strip() and not line.text.startswith(";"):
            cells = [cell.strip() for cell in line.text.split("|", 4)]
            if len(cells) < 3 or cells[1] not in _SEX:
                yield folder.reject(
                    Reason.MALFORMED,
                    f"not 'id | F or M | subset | ...': {line.text[:60]!r}",
                    name,
                    line=line.number,
                )
                continue
            readers.sex[cells[0]] = _SEX[cells[1]]
            readers.subset[cells[0]] = cells[2]


def _transcripts(
    folder: CorpusFolder, readers: Readers, name: str, used: set[str]
) -> Iterator[ClipRow | Reject]:
    prefix = posixpath.basename(name).removesuffix(_TRANSCRIPTS) + "-"
    for line in folder.lines(name):
        if isinstance(line, BadLine):
            yield folder.reject_line(line, name)
        elif line.text.strip():
            yield _utterance(folder, readers, name, line, prefix, used)


def _utterance(
    folder: CorpusFolder, readers: Readers, name: str, line: Line, prefix: str, used: set[str]
) -> ClipRow | Reject:
    utterance, _, text = line.text.strip().partition(" ")
    reason = Reason.MALFORMED
    if not _UTTERANCE.fullmatch(utterance):
        problem = f"the line does not begin with an utterance id: {line.text[:60]!r}"
    elif not utterance.startswith(prefix):
        problem = f"{utterance} does not belong to chapter {prefix[:-1]}"
    else:
        try:
            audio, _ = folder.find_audio(posixpath.join(posixpath.dirname(name), utterance))
            used.add(audio)
            transcript, note = clean_text(text)
            if transcript:
                return _clip(folder, readers, audio, Place(name, line.number), transcript, note)
            reason, problem = Reason.MISSING_VALUE, f"{utterance} has no text"
        except AudioLookupError as error:
            is_empty = not text.strip()
            reason = Reason.MISSING_VALUE if is_empty else error.reason
            problem = f"{utterance} has no text and no audio" if is_empty else error.detail
    return folder.reject(reason, problem, name, line=line.number)


def _clip(
    folder: CorpusFolder,
    readers: Readers,
    audio: str,
    place: Place,
    transcript: str | None,
    note: str | None = None,
) -> ClipRow | Reject:
    match = _UTTERANCE.fullmatch(_stem(audio))
    if match is None:
        return folder.reject(
            Reason.BAD_NAME, f"{_stem(audio)!r} is not speaker-chapter-utterance", audio
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


def _stem(name: str) -> str:
    return stem_of(posixpath.basename(name))
