"""Read speech in the Common Voice layout: `clips/*.mp3`, and a table for each set, by language."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.data.corpora.base import CorpusFolder
from pipeline.data.corpora.entries import Entry, table_entries
from pipeline.data.corpora.records import RecordReader
from pipeline.data.corpora.table import header_of
from pipeline.data.rejects import Reason
from pipeline.data.schema import ClipRow, Reject

SPLIT_TABLES = {"train.tsv": "train", "dev.tsv": "validation", "test.tsv": "test"}
"""Tables of the declared splits."""
VALIDATED = "validated.tsv"
"""Table of all recordings that reviewers confirmed; the splits are a part of it."""
LEFT_OUT = ("invalidated.tsv", "other.tsv")
"""Tables of recordings that reviewers rejected, or have not reviewed."""
_COLUMNS = ("client_id", "path", "sentence")


class CommonVoice:
    """`train.tsv`, `dev.tsv`, `test.tsv` and `validated.tsv` beside `clips/`.

    Confirmed recordings outside the splits are for training, unless their speaker is in another
    split: a speaker is never on both sides.
    """

    layout = "common_voice"

    def matches(self, folder: CorpusFolder) -> bool:
        """Whether such a table and clips lie in the folder."""
        return any(name.startswith("clips/") for name in folder.audio) and any(
            set(_COLUMNS) <= set(header_of(folder, name)[0]) for name in _tables(folder)
        )

    def read(self, folder: CorpusFolder) -> Iterator[ClipRow | Reject]:
        """Every row of the splits, then the other confirmed rows."""
        for name in folder.having(".tsv"):
            folder.claim(name)
        reader = RecordReader(folder, modality="speech")
        splits: dict[str, str] = {}
        read: set[str] = set()
        for name in _tables(folder):
            for entry in table_entries(folder, name, _COLUMNS, delimiter="\t", is_quoted=False):
                if isinstance(entry, Reject):
                    yield entry
                    continue
                speaker, path = entry.values["client_id"], entry.values["path"]
                if name == VALIDATED and path in read:
                    continue
                read.add(path)
                split = SPLIT_TABLES.get(name) or splits.get(speaker, "train")
                splits.setdefault(speaker, split)
                yield _clip(reader, entry, split)
        for name in LEFT_OUT:
            if name in folder.files:
                yield from _leave_out(folder, name)


def _tables(folder: CorpusFolder) -> list[str]:
    return [name for name in (*SPLIT_TABLES, VALIDATED) if name in folder.files]


def _clip(reader: RecordReader, entry: Entry, split: str) -> ClipRow | Reject:
    record = {key: value for key, value in entry.values.items() if key != "segment"}
    return reader.read(record, entry.place, near="clips", split=split, licence="CC0-1.0")


def _leave_out(folder: CorpusFolder, name: str) -> Iterator[Reject]:
    num_rows = 0
    for entry in table_entries(folder, name, _COLUMNS, delimiter="\t", is_quoted=False):
        if isinstance(entry, Entry):
            folder.claim_if_there([entry.values["path"]], "clips")
            num_rows += 1
    if num_rows:
        yield folder.reject(
            Reason.UNCLAIMED, f"{num_rows} recordings that reviewers did not confirm", name
        )
