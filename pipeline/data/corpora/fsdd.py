"""Spoken digits in the Free Spoken Digit Dataset layout: everything is in the file name."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pipeline.data.corpora.base import CorpusFolder, Place
from pipeline.data.corpora.file_names import last_stem_of
from pipeline.data.rejects import Reason
from pipeline.data.schema import ClipRow, Reject

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
"""Words spoken."""
_NAME = re.compile(r"(?P<digit>[0-9])_(?P<speaker>[A-Za-z]+)_(?P<index>0|[1-9][0-9]*)")
_ALIKE = re.compile(r"[^_]{1,2}_.*")
_FOLDER = "recordings"


class Fsdd:
    """`recordings/{digit}_{speaker}_{index}.wav`, or the same without the folder."""

    layout = "fsdd"

    def matches(self, folder: CorpusFolder) -> bool:
        """Whether some names follow the scheme, and most of the others at least resemble it."""
        if folder.root.endswith(f"/{_FOLDER}"):
            return False
        stems = [last_stem_of(name) for name in _recordings(folder)]
        alike = sum(bool(_ALIKE.fullmatch(stem)) for stem in stems)
        return any(map(_NAME.fullmatch, stems)) and alike >= 0.8 * len(stems)

    def read(self, folder: CorpusFolder) -> Iterator[ClipRow | Reject]:
        """Every audio file."""
        for name in _recordings(folder):
            folder.claim(name)
            match = _NAME.fullmatch(last_stem_of(name))
            if match is None:
                yield folder.reject(
                    Reason.BAD_NAME,
                    f"{last_stem_of(name)!r} is not digit_speaker_index: one digit 0-9, letters, a "
                    "number without leading zeros",
                    name,
                )
                continue
            yield folder.clip(
                last_stem_of(name),
                name,
                modality="speech",
                place=Place(name),
                transcript=DIGITS[int(match["digit"])],
                speaker=match["speaker"],
                language="en",
                licence="CC-BY-SA-4.0",
            )


def _recordings(folder: CorpusFolder) -> list[str]:
    inside = [name for name in folder.audio if name.startswith(f"{_FOLDER}/")]
    return inside or [name for name in folder.audio if "/" not in name]
