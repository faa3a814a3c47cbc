"""Read speech in the layout of CMU Sphinx: a list of file ids and a list of transcripts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial

from model.text import clean_text
from pipeline.data.corpora.base import CorpusFolder, Place
from pipeline.data.corpora.entries import parsed_lines, rejecting
from pipeline.data.corpora.manifests import Line, ManifestError
from pipeline.data.rejects import Reason
from pipeline.data.schema import ClipRow, Reject

_LINE = re.compile(r"(?:<s>)?(?P<text>.*?)(?:</s>)?\s*\((?P<id>[^()]+)\)\s*")
_LISTS = re.compile(r"(.*[._])?(fileids|transcription)")


class Sphinx:
    """`*fileids` with one id a line, and `*transcription` with `<s> words </s> (id)`."""

    layout = "sphinx"

    def matches(self, folder: CorpusFolder) -> bool:
        """Whether both lists and audio are there."""
        kinds = {match[2] for name in folder.files if (match := _LISTS.fullmatch(name))}
        return kinds == {"fileids", "transcription"} and bool(folder.audio)

    def read(self, folder: CorpusFolder) -> Iterator[ClipRow | Reject]:
        """Every transcript, then every file id without one."""
        lists = [name for name in folder.files if _LISTS.fullmatch(name)]
        spoken: set[str] = set()
        for name in sorted(lists, key=lambda name: name.endswith("fileids")):
            parse = _transcript if name.endswith("transcription") else _check_spoken
            yield from filter(None, parsed_lines(folder, name, partial(parse, spoken=spoken)))


@rejecting
def _transcript(
    folder: CorpusFolder, place: Place, line: Line, *, spoken: set[str]
) -> ClipRow | Reject:
    match = _LINE.fullmatch(line.text.strip())
    if match is None:
        raise ManifestError(Reason.MALFORMED, f"not '<s> words </s> (id)': {line.text[:60]!r}")
    utterance = match["id"].strip()
    spoken.add(utterance.rpartition("/")[2])
    audio, note = folder.find_audio(utterance, field="id")
    text, cleaning = clean_text(match["text"])
    if not text:
        raise ManifestError(Reason.MISSING_VALUE, "the transcript is empty")
    return folder.clip(
        utterance,
        audio,
        modality="speech",
        place=place,
        transcript=text,
        notes=tuple(filter(None, (note, cleaning))),
    )


@rejecting
def _check_spoken(folder: CorpusFolder, _place: Place, line: Line, *, spoken: set[str]) -> None:
    """Every file id needs a transcript."""
    utterance = line.text.strip()
    if utterance.rpartition("/")[2] not in spoken:
        folder.claim_if_there([utterance])
        raise ManifestError(Reason.MISSING_VALUE, f"{utterance!r} has no transcript")
