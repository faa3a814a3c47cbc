"""Music with captions in the Song Describer layout: two minutes of Jamendo tracks, for testing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from model.text import clean_text
from pipeline.data.corpora.base import CorpusFolder, Place
from pipeline.data.corpora.entries import CaptionGroups, rejecting, table_entries
from pipeline.data.corpora.fields import as_number
from pipeline.data.corpora.manifests import ManifestError
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
                folder.claim_if_there([f"{entry.values['track_id'].strip()}.2min.mp3"])
                num_refused += 1
            elif fault := _add(folder, entry.place, groups, entry.values, works):
                yield fault
        if num_refused:
            yield folder.reject(
                Reason.UNCLAIMED, f"{num_refused} captions that reviewers turned down", TABLE
            )
        yield from groups.clips()


@rejecting
def _add(
    folder: CorpusFolder,
    place: Place,
    groups: CaptionGroups,
    values: Mapping[str, str],
    works: dict[str, Work],
) -> None:
    track = values["track_id"].strip()
    audio = folder.find_named([f"{track}.2min", track], field="track_id")
    caption, note = clean_text(values["caption"])
    if not caption:
        raise ManifestError(Reason.MISSING_VALUE, "the caption is empty", field="caption")
    work = works.get(values["path"], Work(None, None, None))
    duration = as_number(values.get("duration"))
    groups.add(
        track,
        audio,
        place,
        caption,
        declared_duration_s=min(duration, LONGEST_S) if duration and duration > 0 else None,
        title=work.title,
        attribution=work.artist,
        licence=work.licence,
        split="test",
        notes=(note,) if note else (),
    )
