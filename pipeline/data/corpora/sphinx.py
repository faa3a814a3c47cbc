"""Read speech in the layout of CMU Sphinx: a list of file ids and a list of transcripts."""

from __future__ import annotations

import re
from collections.abc import Iterator

from model.text import clean_text
from pipeline.data.corpora.base import CorpusFolder, Place
from pipeline.data.corpora.lookup import AudioLookupError
from pipeline.data.corpora.manifests import BadLine, Line, ManifestError
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
            folder.claim(name)
            try:
                for line in folder.lines(name):
                    if isinstance(line, BadLine):
                        yield folder.reject_line(line, name)
                    elif not line.text.strip():
                        continue
                    elif name.endswith("transcription"):
                        yield _transcript(folder, name, line, spoken)
                    elif line.text.strip().rpartition("/")[2] not in spoken:
                        yield _without_transcript(folder, name, line)
            except ManifestError as error:
                yield folder.reject_manifest(error, name)


def _transcript(folder: CorpusFolder, name: str, line: Line, spoken: set[str]) -> ClipRow | Reject:
    match = _LINE.fullmatch(line.text.strip())
    if match is None:
        return folder.reject(
            Reason.MALFORMED,
            f"not '<s> words </s> (id)': {line.text[:60]!r}",
            name,
            line=line.number,
        )
    utterance = match["id"].strip()
    spoken.add(utterance.rpartition("/")[2])
    try:
        audio, note = folder.find_audio(utterance)
    except AudioLookupError as error:
        return folder.reject(error.reason, error.detail, name, line=line.number, field="id")
    text, cleaning = clean_text(match["text"])
    if not text:
        return folder.reject(
            Reason.MISSING_VALUE, "the transcript is empty", name, line=line.number
        )
    return folder.clip(
        utterance,
        audio,
        modality="speech",
        place=Place(name, line.number),
        transcript=text,
        notes=tuple(filter(None, (note, cleaning))),
    )


def _without_transcript(folder: CorpusFolder, name: str, line: Line) -> ClipRow | Reject:
    utterance = line.text.strip()
    folder.claim_if_there([utterance])
    return folder.reject(
        Reason.MISSING_VALUE, f"{utterance!r} has no transcript", name, line=line.number
    )
