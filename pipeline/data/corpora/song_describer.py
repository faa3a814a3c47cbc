"""Music with captions in the Song Describer layout: two minutes of Jamendo tracks, for testing."""

from __future__ import annotations

from collections.abc import Iterator

from model.text import clean_text
from pipeline.data.corpora.base import CorpusFolder
from pipeline.data.corpora.entries import CaptionGroups, Entry, table_entries
from pipeline.data.corpora.fields import as_number
from pipeline.data.corpora.lookup import AudioLookupError
from pipeline.data.corpora.mtg_jamendo import Work, read_works
from pipeline.data.rejects import Reason
from pipeline.data.schema import ClipRow, Reject

TABLE = "song_describer.csv"
"""Captions by track."""
LONGEST_S = 120.0
"""The audio is cut after this, seconds; the table says how long the track was."""
_COLUMNS = ("caption_id", "track_id", "caption", "path")


class SongDescriber:
    """`song_describer.csv` beside `audio/<folder>/<track>.2min.mp3`.

    Several captions of a track become one clip; captions that reviewers rejected are left out.
    The corpus is for evaluation only, so all of it is the test split.
    """

    layout = "song_describer"

    def matches(self, folder: CorpusFolder) -> bool:
        """Whether the table lies in the folder, and audio below it."""
        return TABLE in folder.files and bool(folder.audio)

    def read(self, folder: CorpusFolder) -> Iterator[ClipRow | Reject]:
        """Every bad row, then every track."""
        for name in folder.having(".tsv"):
            folder.claim(name)
        works: dict[str, Work] = {}
        yield from read_works(folder, works)
        groups = CaptionGroups(folder, "music")
        num_refused = 0
        for entry in table_entries(folder, TABLE, _COLUMNS):
            if isinstance(entry, Reject):
                yield entry
            elif entry.values.get("is_valid_subset", "").strip().lower() == "false":
                folder.claim_if_there([_track(entry)])
                num_refused += 1
            else:
                fault = _add(folder, groups, entry, works)
                if fault is not None:
                    yield fault
        if num_refused:
            yield folder.reject(
                Reason.UNCLAIMED, f"{num_refused} captions that reviewers turned down", TABLE
            )
        yield from groups.clips()


def _track(entry: Entry) -> str:
    return f"{entry.values['track_id'].strip()}.2min.mp3"


def _add(
    folder: CorpusFolder, groups: CaptionGroups, entry: Entry, works: dict[str, Work]
) -> Reject | None:
    manifest, line = entry.place.manifest, entry.place.line
    track = entry.values["track_id"].strip()
    try:
        audio = folder.find_named([f"{track}.2min", track])
    except AudioLookupError as error:
        return folder.reject(error.reason, error.detail, manifest, line=line, field="track_id")
    caption, note = clean_text(entry.values["caption"])
    if not caption:
        return folder.reject(
            Reason.MISSING_VALUE, "the caption is empty", manifest, line=line, field="caption"
        )
    work = works.get(entry.values["path"], Work(None, None, None))
    duration = as_number(entry.values.get("duration"))
    groups.add(
        track,
        audio,
        entry.place,
        caption,
        declared_duration_s=min(duration, LONGEST_S) if duration and duration > 0 else None,
        title=work.title,
        attribution=work.artist,
        licence=work.licence,
        split="test",
        notes=(note,) if note else (),
    )
    return None
