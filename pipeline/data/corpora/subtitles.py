"""Recordings with their text beside them: `.srt` cues, or a text file of the same name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from model.text import clean_text
from pipeline.data.corpora.base import CorpusFolder, Place
from pipeline.data.corpora.entries import rejecting
from pipeline.data.corpora.file_names import is_audio_name, stem_of
from pipeline.data.corpora.manifests import BadLine, Line, ManifestError, read_lines
from pipeline.data.rejects import Reason
from pipeline.data.schema import ClipRow, Reject

OVERLAP_S = 0.05
"""Cues may overlap by this much, seconds: rounding, not two voices."""
_TIMES = re.compile(r"\s*(\d+):(\d+):(\d+)[,.](\d{3})\s*-->\s*(\d+):(\d+):(\d+)[,.](\d{3}).*")
_TEXT_SUFFIXES = (".txt", ".lab")
_FRAGMENT = re.compile(r"[A-Za-z]+\d+\|(?P<text>.*)")


@dataclass
class Cue:
    """One cue of a subtitle file.

    Attributes:
        line: Line of its times, or its first line.
        text: Words, on one line.
        start_s: Start, seconds.
        end_s: End, seconds.
        problem: Why it cannot be used; empty if it can.
    """

    line: int
    text: str
    start_s: float = 0.0
    end_s: float = 0.0
    problem: str = ""
    reason: Reason = Reason.BAD_SPAN


class TextBeside:
    """`<name>.srt` gives a clip for every cue; else `<name>.txt` or `.lab` is the transcript.

    The text is plain, or lines of `fragment|words`.
    """

    layout = "text_beside"

    def matches(self, folder: CorpusFolder) -> bool:
        """Whether there are subtitles, or a text with audio of the same name."""
        if folder.having(".srt"):
            return True
        stems = {stem_of(name) for name in folder.files if is_audio_name(name)}
        return any(name.rpartition(".")[0] in stems for name in folder.having(*_TEXT_SUFFIXES))

    def read(self, folder: CorpusFolder) -> Iterator[ClipRow | Reject]:
        """Every cue, then every text of audio that has no cues."""
        audio = {stem_of(name): name for name in reversed(folder.files) if is_audio_name(name)}
        with_cues = set()
        for name in folder.having(".srt"):
            folder.claim(name)
            with_cues.add(name.rpartition(".")[0])
            try:
                yield from _cue_clips(folder, name)
            except ManifestError as error:
                yield folder.reject_manifest(error, name)
        for name in folder.having(*_TEXT_SUFFIXES):
            stem = name.rpartition(".")[0]
            if stem in audio:
                folder.claim(name)
                if stem not in with_cues:
                    folder.claim(audio[stem])
                    yield _whole_clip(folder, name, audio[stem])


def read_cues(payload: bytes) -> Iterator[Cue | BadLine]:
    """Cues of an SRT file, good and bad.

    Raises:
        ManifestError: If the file is empty or in another Unicode form.
    """
    block: list[Line] = []
    for line in read_lines(payload):
        if isinstance(line, BadLine):
            yield line
        elif line.text.strip():
            block.append(line)
        elif block:
            yield _cue(block)
            block = []
    if block:
        yield _cue(block)


def _cue(block: list[Line]) -> Cue:
    lines = block[1:] if block[0].text.strip().isdecimal() and len(block) > 1 else block
    match = _TIMES.fullmatch(lines[0].text)
    if match is None:
        return Cue(
            lines[0].number,
            "",
            problem=f"no line of times: {lines[0].text[:60]!r}",
            reason=Reason.MALFORMED,
        )
    parts = [int(part) for part in match.groups()]
    cue = Cue(
        lines[0].number,
        " ".join(line.text for line in lines[1:]),
        _seconds(parts[:4]),
        _seconds(parts[4:]),
    )
    if any(part > 59 for part in (parts[1], parts[2], parts[5], parts[6])):
        cue.problem, cue.reason = "minutes or seconds beyond 59", Reason.MALFORMED
    elif cue.end_s <= cue.start_s:
        cue.problem = f"ends at {cue.end_s:g} s, before it starts at {cue.start_s:g} s"
    elif not cue.text.strip():
        cue.problem, cue.reason = "the cue has no text", Reason.MISSING_VALUE
    return cue


def _seconds(parts: list[int]) -> float:
    hours, minutes, seconds, milliseconds = parts
    return hours * 3600 + minutes * 60 + seconds + milliseconds / 1000


def _cue_clips(folder: CorpusFolder, name: str) -> Iterator[ClipRow | Reject]:
    cues: list[Cue] = []
    for item in read_cues(folder.read_bytes(name)):
        if isinstance(item, BadLine):
            yield folder.reject_line(item, name)
        else:
            cues.append(item)
    _mark_overlaps(cues)
    stem = name.rpartition(".")[0]
    for cue in cues:
        yield _cue_clip(folder, Place(name, cue.line), cue, stem)


@rejecting
def _cue_clip(folder: CorpusFolder, place: Place, cue: Cue, stem: str) -> ClipRow | Reject:
    if cue.problem:
        folder.claim_if_there([stem])
        raise ManifestError(cue.reason, cue.problem)
    audio, _ = folder.find_audio(stem)
    text, note = clean_text(cue.text)
    return folder.clip(
        f"{stem}@{cue.start_s:.3f}",
        audio,
        modality="speech",
        place=place,
        start_s=cue.start_s,
        end_s=cue.end_s,
        transcript=text,
        notes=(note,) if note else (),
    )


def _mark_overlaps(cues: list[Cue]) -> None:
    good = sorted((cue for cue in cues if not cue.problem), key=lambda cue: cue.start_s)
    latest: Cue | None = None
    for cue in good:
        if latest is not None and cue.start_s < latest.end_s - OVERLAP_S:
            for one, other in ((latest, cue), (cue, latest)):
                one.problem = one.problem or f"overlaps the cue at line {other.line}"
        if latest is None or cue.end_s > latest.end_s:
            latest = cue


def _whole_clip(folder: CorpusFolder, name: str, audio: str) -> ClipRow | Reject:
    texts = []
    try:
        for line in read_lines(folder.read_bytes(name)):
            if isinstance(line, BadLine):
                return folder.reject_line(line, name)
            match = _FRAGMENT.fullmatch(line.text.strip())
            texts.append(match["text"] if match else line.text)
    except ManifestError as error:
        return folder.reject_manifest(error, name)
    text, note = clean_text(" ".join(texts))
    return folder.clip(
        stem_of(audio),
        audio,
        modality="speech",
        place=Place(name),
        transcript=text,
        notes=(note,) if note else (),
    )
