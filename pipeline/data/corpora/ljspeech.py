"""Read speech in the LJ Speech layout: `id|text|normalised text` lines beside a folder of audio."""

from __future__ import annotations

import re
from collections.abc import Iterator

from model.text import clean_text
from pipeline.data.corpora.base import CorpusFolder, Place
from pipeline.data.corpora.entries import parsed_lines, rejecting
from pipeline.data.corpora.licences import PUBLIC_DOMAIN
from pipeline.data.corpora.manifests import Line, ManifestError, read_lines
from pipeline.data.corpora.records import is_manifest_header
from pipeline.data.corpora.table import header_of
from pipeline.data.rejects import Reason
from pipeline.data.schema import ClipRow, Reject

_ORIGINAL_ID = re.compile(r"LJ\d{3}-\d{4}")


class LjSpeech:
    """`metadata.csv` without header or quoting, or, if there is none, every `.csv` of that form.

    One voice reads everything. The normalised text is the transcript where there is one: it is
    what was spoken.
    """

    layout = "ljspeech"

    def matches(self, folder: CorpusFolder) -> bool:
        """Whether a table of pipes without a header lies in the folder, and audio below it."""
        return bool(folder.audio) and any(_is_piped(folder, name) for name in _tables(folder))

    def read(self, folder: CorpusFolder) -> Iterator[ClipRow | Reject]:
        """Every line."""
        for name in _tables(folder):
            yield from parsed_lines(folder, name, _row)


def _tables(folder: CorpusFolder) -> list[str]:
    tables = folder.having(".csv")
    return ["metadata.csv"] if "metadata.csv" in tables else tables


def _is_piped(folder: CorpusFolder, name: str) -> bool:
    try:
        lines = [line for line in read_lines(folder.head(name)) if isinstance(line, Line)]
    except ManifestError:
        return False
    texts = [line.text for line in lines if line.text.strip() and line.text[0] != "#"]
    has_pipes = bool(texts) and texts[0].count("|") in (1, 2)
    return has_pipes and not is_manifest_header(header_of(folder, name)[0])


@rejecting
def _row(folder: CorpusFolder, place: Place, line: Line) -> ClipRow | Reject:
    cells = line.text.split("|")
    if len(cells) not in (2, 3):
        folder.claim_if_there(cells[:1])
        what = "a comment?" if line.text.startswith("#") else "id|text|normalised text is needed"
        detail = f"{len(cells)} columns: {what}: {line.text[:60]!r}"
        raise ManifestError(Reason.MALFORMED, detail)
    audio, note = folder.find_audio(cells[0], field="id")
    cleaned = [clean_text(cell) for cell in cells[1:]]
    texts = [text for text, _ in cleaned if text]
    if not texts:
        raise ManifestError(Reason.MISSING_VALUE, "the transcript is empty", field="text")
    if max(map(len, texts)) > 4 * min(map(len, texts)) + 40:
        raise ManifestError(
            Reason.CONFLICT,
            f"text and normalised text of {len(texts[0])} and {len(texts[-1])} characters cannot "
            "be the same words",
        )
    is_original = bool(_ORIGINAL_ID.fullmatch(cells[0]))
    return folder.clip(
        cells[0],
        audio,
        modality="speech",
        place=place,
        transcript=texts[-1],
        speaker="reader",
        speaker_sex="female" if is_original else None,
        language="en" if is_original else None,
        licence=PUBLIC_DOMAIN if is_original else None,
        notes=tuple(dict.fromkeys(filter(None, [note, *(note for _, note in cleaned)]))),
    )
