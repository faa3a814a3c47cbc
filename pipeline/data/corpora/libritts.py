"""Read speech in the layout of LibriTTS and LibriTTS-R: LibriSpeech cut at sentences, with case."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator

from model.text import clean_text
from pipeline.data.corpora.base import CorpusFolder, Place
from pipeline.data.corpora.entries import cell_lines, read_text, rejecting
from pipeline.data.corpora.file_names import last_stem_of, stem_of
from pipeline.data.corpora.librispeech import SEX, SUBSET_SPLITS, Readers, read_readers
from pipeline.data.corpora.manifests import Line, ManifestError
from pipeline.data.rejects import Reason
from pipeline.data.schema import ClipRow, Reject

READERS = ("SPEAKERS.txt", "speakers.tsv")
"""Tables of the readers at the root; the first that is there counts."""
_UTTERANCE = re.compile(r"(?P<speaker>\d+)_(?P<chapter>\d+)_\d{6}_\d{6}")
_IN_SUBSET = re.compile(r"(?P<speaker>\d+)/(?P<chapter>\d+)/(?P=speaker)_(?P=chapter)_\d{6}_\d{6}")
_TRANSCRIPTS = ".trans.tsv"
_TEXTS = (".normalized.txt", ".original.txt")
_SUBSET = re.compile(r"(train|dev|test)-[a-z0-9-]+")


class LibriTts:
    """`<subset>/<speaker>/<chapter>/<id>.wav`; the normalised text is the transcript.

    It comes from the chapter's `.trans.tsv` (id, original, normalised), else from the text file
    beside the audio. Audio without either becomes an untranscribed clip.
    """

    layout = "libritts"

    def matches(self, folder: CorpusFolder) -> bool:
        """Whether this is the root: a table of readers, or a subset with none above."""
        is_root = any(name in folder.files for name in READERS)
        if is_root:
            return any(_UTTERANCE.fullmatch(last_stem_of(name)) for name in folder.audio)
        if any(folder.exists_above(name) for name in READERS):
            return False
        return any(_IN_SUBSET.fullmatch(stem_of(name)) for name in folder.audio)

    def read(self, folder: CorpusFolder) -> Iterator[ClipRow | Reject]:
        """Every line of every chapter, then the audio that none of them names."""
        readers = Readers()
        yield from _read_readers(folder, readers)
        used: set[str] = set()
        for name in folder.names:
            if name.endswith((".tsv", *_TEXTS)):
                folder.claim(name)
            if name.endswith(_TRANSCRIPTS):
                for line in cell_lines(folder, name, "\t"):
                    if isinstance(line, Line):
                        yield _utterance(folder, Place(name, line.number), line, readers, used)
                    else:
                        yield line
        for audio in folder.audio:
            if audio not in used:
                yield _beside(folder, readers, audio)


def _read_readers(folder: CorpusFolder, readers: Readers) -> Iterator[Reject]:
    name = next((name for name in READERS if name in folder.files), None)
    if name == READERS[0]:
        yield from read_readers(folder, name, readers)
    elif name is not None:
        for line in cell_lines(folder, name, "\t"):
            if isinstance(line, Reject):
                yield line
            elif line.cells[0].strip().isdecimal() and len(line.cells) > 2:
                readers.sex[line.cells[0].strip()] = SEX.get(line.cells[1].strip())


@rejecting
def _utterance(
    folder: CorpusFolder, place: Place, line: Line, readers: Readers, used: set[str]
) -> ClipRow | Reject:
    if len(line.cells) != 3 or not _UTTERANCE.fullmatch(line.cells[0]):
        detail = f"not 'id, text, normalised text' between tabs: {line.text[:60]!r}"
        raise ManifestError(Reason.MALFORMED, detail)
    near = posixpath.dirname(place.manifest)
    audio, _ = folder.find_audio(posixpath.join(near, line.cells[0]))
    used.add(audio)
    texts = [text for text in (line.cells[2], line.cells[1]) if clean_text(text)[0]]
    if not texts:
        raise ManifestError(Reason.MISSING_VALUE, f"{line.cells[0]} has no text")
    return _clip(folder, readers, audio, place, texts[0])


def _beside(folder: CorpusFolder, readers: Readers, audio: str) -> ClipRow | Reject:
    folder.claim(audio)
    if not _UTTERANCE.fullmatch(last_stem_of(audio)):
        return folder.reject(
            Reason.BAD_NAME,
            f"{last_stem_of(audio)!r} is not speaker_chapter_paragraph_sentence",
            audio,
        )
    for suffix in _TEXTS:
        name = stem_of(audio) + suffix
        if name in folder.names:
            text = read_text(folder, name)
            if isinstance(text, Reject):
                return text
            if clean_text(text)[0]:
                return _clip(folder, readers, audio, Place(name), text)
    return _clip(folder, readers, audio, Place(audio), "")


def _clip(
    folder: CorpusFolder, readers: Readers, audio: str, place: Place, text: str
) -> ClipRow | Reject:
    transcript, note = clean_text(text)
    speaker = last_stem_of(audio).partition("_")[0]
    subset = next(
        (part for part in folder.parts_of(audio) if _SUBSET.fullmatch(part)), ""
    ).partition("-")[0]
    return folder.clip(
        last_stem_of(audio),
        audio,
        modality="speech",
        place=place,
        transcript=transcript or None,
        speaker=speaker,
        speaker_sex=readers.sex.get(speaker),
        language="en",
        licence="CC-BY-4.0",
        split=SUBSET_SPLITS.get(subset),
        notes=(note,) if note else (),
    )
