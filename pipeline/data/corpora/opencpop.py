"""Singing in the Opencpop layout: `id|lyrics|phonemes|notes|...` lines beside a folder of audio."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from model.text import clean_text
from pipeline.data.corpora.base import CorpusFolder, Place
from pipeline.data.corpora.entries import cell_lines, rejecting
from pipeline.data.corpora.manifests import Line, ManifestError
from pipeline.data.rejects import Reason
from pipeline.data.schema import ClipRow, Reject

TABLES = {"train.txt": "train", "test.txt": "test", "transcriptions.txt": None}
"""Tables and the split that each declares; the last holds the others."""
FOLDER = "segments"
"""Directory of the tables and of `wavs`, relative to the corpus."""
_NUM_CELLS = 7


class Opencpop:
    """`segments/wavs/<id>.wav`, and in `segments/train.txt` and `test.txt` what is sung.

    One woman sings Mandarin; the lyrics are the transcript. Whole songs, in `wavs` at the root,
    have none, and are left out with their annotations.
    """

    layout = "opencpop"

    def matches(self, folder: CorpusFolder) -> bool:
        """Whether a table of segments lies where it should, with lines of seven cells."""
        return any(_is_table(folder, name) for name in _tables(folder))

    def read(self, folder: CorpusFolder) -> Iterator[ClipRow | Reject]:
        """Every line of the splits, then those of the whole that neither holds."""
        read: set[str] = set()
        for name in _tables(folder):
            split = TABLES[posixpath.basename(name)]
            for line in cell_lines(folder, name, "|"):
                if isinstance(line, Reject):
                    yield line
                elif split is not None or line.cells[0] not in read:
                    read.add(line.cells[0])
                    yield _clip(folder, Place(name, line.number), line, split)
        for audio in folder.audio:
            if audio.startswith("wavs/"):
                folder.claim(audio)


def _tables(folder: CorpusFolder) -> list[str]:
    paths = [posixpath.join(FOLDER, name) for name in TABLES]
    return [path for path in paths if path in folder.names]


def _is_table(folder: CorpusFolder, name: str) -> bool:
    first = folder.head(name).partition(b"\n")[0].split(b"|")
    return len(first) == _NUM_CELLS and first[0].isdigit()


@rejecting
def _clip(folder: CorpusFolder, place: Place, line: Line, split: str | None) -> ClipRow | Reject:
    if len(line.cells) != _NUM_CELLS:
        raise ManifestError(
            Reason.MALFORMED,
            f"{len(line.cells)} cells; id, lyrics, phonemes, notes, durations, slurs are needed",
        )
    key = line.cells[0].strip()
    audio, _ = folder.find_audio(posixpath.join(FOLDER, "wavs", key), field="id")
    lyrics, note = clean_text(line.cells[1])
    if not lyrics:
        raise ManifestError(Reason.MISSING_VALUE, "the lyrics are empty", field="lyrics")
    return folder.clip(
        key,
        audio,
        modality="speech",
        place=place,
        transcript=lyrics,
        is_singing=True,
        speaker="singer",
        speaker_sex="female",
        language="zh",
        split=split,
        notes=(note,) if note else (),
    )
