"""Finds clips of which a part is in an evaluation set, wherever the part starts.

The fingerprint of a clip keeps at most 128 words. Evaluation sets are small, so that of their clips
dense fingerprints are computed: a word every 16 ms. Where a word of a clip is also one of an
evaluation set, the two are laid over each other at that place and compared.

Source:
    Haitsma and Kalker, A Highly Robust Audio Fingerprinting System, ISMIR 2002.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.audio.files import AudioError, open_audio
from pipeline.clip_tables import ClipTables, part_name
from pipeline.data.rejects import Reason, reject_clip
from pipeline.data.screening.fingerprints import (
    MIN_WORDS,
    Fingerprinter,
    Words,
    stride_for,
    to_bytes,
)
from pipeline.data.units.stage import Unit, UnitOutput
from pipeline.storage import iter_rows, table_bytes

PHASES = 4
"""Words of a dense fingerprint between two words of an ordinary one."""
_COLUMNS = ["clip_id", "corpus", "uri", "start_s", "end_s"]
_DENSE = pa.schema([("clip_id", pa.string()), ("words", pa.binary())])
_MAX_ALIGNMENTS = 256  # that are compared of one clip, those with the most equal words first


class ExcerptIndex:
    """Dense fingerprints of evaluation clips, by word.

    Holds some 13 bytes a word, 3 MB an hour.

    Args:
        clips: Label and dense fingerprint of every clip.
        max_error_rate: Share of differing bits up to which two parts are of one recording.
    """

    def __init__(self, clips: Sequence[tuple[str, Words]], max_error_rate: float) -> None:
        self._limit = max_error_rate
        self._labels = [label for label, _ in clips]
        self._words = np.concatenate([words for _, words in clips] or [np.zeros(0, np.uint32)])
        self._ends = np.cumsum([len(words) for _, words in clips], dtype=np.int64)
        loud = np.flatnonzero(self._words)
        self._places = loud[np.argsort(self._words[loud], kind="stable")]
        self._sorted = self._words[self._places]

    def find(self, words: Words, duration_s: float) -> str:
        """Label of an evaluation clip that shares a part with a clip; empty if there is none.

        The part must have as many words with sound as two clips need to be compared, 28: those of
        1.8 s in a clip of up to 8.6 s, of 3.6 s in one of up to 16.8 s, of 7.2 s in one of up to
        33 s, of 14 s in one of up to 66 s.

        Args:
            words: Ordinary fingerprint of the clip.
            duration_s: Duration of the clip, seconds.
        """
        own = np.flatnonzero(words)
        if len(own) < MIN_WORDS or not len(self._sorted):
            return ""
        step = stride_for(duration_s, len(words)) * PHASES
        first = np.searchsorted(self._sorted, words[own], "left")
        last = np.searchsorted(self._sorted, words[own], "right")
        counts = last - first
        if not counts.any():
            return ""
        hits = np.repeat(first, counts) + _ranks(counts)
        places = self._places[hits]
        shifts = places - np.repeat(own, counts) * step
        clips = np.searchsorted(self._ends, places, "right")
        pairs, votes = np.unique(np.stack([clips, shifts], axis=1), axis=0, return_counts=True)
        for clip, shift in pairs[np.argsort(-votes, kind="stable")][:_MAX_ALIGNMENTS]:
            if self._agrees(words, own * step + shift, own, int(clip)):
                return self._labels[clip]
        return ""

    def _agrees(self, words: Words, places: Any, own: Any, clip: int) -> bool:
        start = self._ends[clip - 1] if clip else 0
        is_inside = (places >= start) & (places < self._ends[clip])
        theirs = self._words[places[is_inside]]
        ours = words[own[is_inside]][theirs != 0]
        theirs = theirs[theirs != 0]
        if len(ours) < MIN_WORDS:
            return False
        return bool(np.bitwise_count(ours ^ theirs).sum() <= self._limit * 32 * len(ours))


def _ranks(counts: Any) -> Any:
    """0, 1, ... for every count, one after the other."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)


class DenseWorker:
    """Computes dense fingerprints of the clips of an evaluation set.

    Args:
        clips: The clips.
    """

    def __init__(self, clips: ClipTables) -> None:
        self._clips = clips

    def process(self, unit: Unit) -> UnitOutput:
        """Fingerprints of a unit, and a reject for every clip whose audio cannot be read."""
        rows, rejects = [], []
        for clip in iter_rows(self._clips.read(unit.payload["part"], _COLUMNS)):
            try:
                if not unit.guard(clip["clip_id"]):
                    rejects.append(reject_clip(clip, Reason.WORKER_DIED, "decoding it did"))
                    continue
                with open_audio(clip["uri"], clip["start_s"], clip["end_s"]) as stream:
                    words = Fingerprinter(stream.info.sample_rate, PHASES)
                    for block in stream.blocks():
                        words.add(block)
                        unit.beat()
            except AudioError as error:
                rejects.append(reject_clip(clip, error.reason, error.detail))
                continue
            rows.append({"clip_id": clip["clip_id"], "words": to_bytes(words.result())})
        table = pa.Table.from_pylist(rows, schema=_DENSE)
        files = {part_name(unit.name): table_bytes(table)}
        return UnitOutput(files, len(rows) + len(rejects), len(rows), rejects)
