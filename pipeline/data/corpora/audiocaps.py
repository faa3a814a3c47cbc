"""Sounds with captions in the AudioCaps layout: tables by YouTube id, and an excerpt for each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from model.text import clean_text
from pipeline.data.corpora.base import CorpusFolder, Place
from pipeline.data.corpora.entries import CaptionGroups, rejecting, table_entries
from pipeline.data.corpora.manifests import ManifestError
from pipeline.data.corpora.table import header_of
from pipeline.data.rejects import Reason
from pipeline.data.schema import ClipRow, Reject

EXCERPT_S = 10
"""Length of an excerpt, seconds."""
FOLDERS = ("", "dataset", "dataset2.0", "csv_files", "metadata")
"""Directories of the tables, relative to the corpus."""
_COLUMNS = ("audiocap_id", "youtube_id", "start_time", "caption")
_SPLITS = {"train": "train", "val": "validation", "test": "test"}
_TABLE = re.compile(r"(?:.*/)?(?P<set>train|val|test)\w*\.csv")


class AudioCaps:
    """`train.csv`, `val.csv`, `test.csv`: audiocap_id, youtube_id, start_time, caption.

    The audio is not published. Files are found by the names that downloaders give them:
    `<youtube_id>_<start>`, `<youtube_id>_<start ms>_<end ms>`, `Y<youtube_id>`, `<youtube_id>` or
    `<audiocap_id>`. Several captions of one excerpt become one clip.
    """

    layout = "audiocaps"

    def matches(self, folder: CorpusFolder) -> bool:
        """Whether a table with those columns lies in the folder, and audio below it."""
        return bool(folder.audio) and any(
            set(_COLUMNS) <= set(header_of(folder, name)[0]) for name in _tables(folder)
        )

    def read(self, folder: CorpusFolder) -> Iterator[ClipRow | Reject]:
        """Every row that has no audio, then every excerpt that has."""
        groups = CaptionGroups(folder, "sound")
        for name in _tables(folder):
            match = _TABLE.fullmatch(name)
            split = _SPLITS[match["set"]] if match else None
            for entry in table_entries(folder, name, _COLUMNS):
                if isinstance(entry, Reject):
                    yield entry
                elif fault := _add(folder, entry.place, groups, entry.values, split):
                    yield fault
        yield from groups.clips()


def _tables(folder: CorpusFolder) -> list[str]:
    names = [name for place in FOLDERS for name in folder.having(".csv", within=place)]
    return [name for name in names if _TABLE.fullmatch(name)]


@rejecting
def _add(
    folder: CorpusFolder,
    place: Place,
    groups: CaptionGroups,
    values: Mapping[str, str],
    split: str | None,
) -> None:
    number, video, start, caption = (values[name].strip() for name in _COLUMNS)
    if not start.isdecimal():
        raise ManifestError(
            Reason.MALFORMED, f"{start!r} is not a number of seconds", field="start_time"
        )
    start_ms, end_ms = int(start) * 1_000, (int(start) + EXCERPT_S) * 1_000
    key = f"{video}_{int(start)}"
    stems = (key, f"{video}_{start_ms}_{end_ms}", f"Y{video}", video, number)
    audio = folder.find_named([stem for stem in stems if stem], field="youtube_id")
    text, note = clean_text(caption)
    if not text:
        raise ManifestError(Reason.MISSING_VALUE, "the caption is empty", field="caption")
    groups.add(key, audio, place, text, split=split, notes=(note,) if note else ())
