"""Music with captions in the MusicCaps layout: a table by video id, and one excerpt for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.data.corpora.table import Table


class MusicCaps(Table):
    """ytid, start_s, end_s, aspect_list, caption; the audio is `<ytid>` with any ending.

    `start_s` and `end_s` say where in the video the excerpt was; the audio files of this layout
    are that excerpt already, so they only tell how long it should be.
    """

    layout = "musiccaps"
    modality = "music"
    has_spans = False
    required = ("ytid", "caption")

    def is_header(self, columns: Sequence[str]) -> bool:
        """ytid with a caption or aspects."""
        return "ytid" in columns and ("caption" in columns or "aspect_list" in columns)

    def known(self, record: Mapping[str, str]) -> dict[str, Any]:
        """Excerpts of the evaluation set of AudioSet are for testing, where the table says so."""
        flag = record.get("is_audioset_eval", "").strip().lower()
        return {"split": "test"} if flag == "true" else {}
