"""Clips to read and hear: descriptions of each modality, and rejects of each reason."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.clip_tables import part_name
from pipeline.data.rejects import Reason
from pipeline.data.report.listening import Listening
from pipeline.data.report.stages import StageFolder
from pipeline.storage import iter_rows


@dataclass(frozen=True)
class Described:
    """One clip with its texts.

    Attributes:
        clip_id: The clip's id.
        modality: The clip's modality.
        source: Origin of the texts.
        texts: Descriptions of the clip.
        transcript: Words spoken or sung, or empty.
        language: Language of the texts, or empty.
        audio: Address of its first seconds, or empty.
        silence: Why there is no audio, or empty.
    """

    clip_id: str
    modality: str
    source: str
    texts: list[str]
    transcript: str
    language: str
    audio: str
    silence: str


@dataclass(frozen=True)
class Texts:
    """Counts and examples of the texts that `describe` wrote.

    Attributes:
        clips: Clips described.
        texts: Descriptions of them all.
        distinct: Number of distinct texts among them.
        words: Mean number of words.
        sources: Clips by source.
        examples: Some, by modality.
    """

    clips: int
    texts: int
    distinct: int
    words: float
    sources: dict[str, int]
    examples: dict[str, list[Described]]


@dataclass(frozen=True)
class Refused:
    """One reject row, and its audio where it can be played."""

    clip_id: str
    corpus: str
    detail: str
    place: str
    audio: str
    silence: str


@dataclass(frozen=True)
class Rejects:
    """All rejects of one reason in one stage.

    Attributes:
        stage: Stage that refused.
        reason: Code.
        count: Rows.
        share: Share of what the stage read, in [0, 1].
        corpora: The corpora with most of them, and how many.
        examples: Some of them.
    """

    stage: str
    reason: str
    count: int
    share: float
    corpora: list[tuple[str, int]]
    examples: list[Refused]


def texts_of(
    descriptions: StageFolder, clips: StageFolder | None, per_modality: int, listening: Listening
) -> Texts:
    """Count the descriptions and pick some; the same ones on every run."""
    picks: defaultdict[str, _Smallest] = defaultdict(lambda: _Smallest(per_modality))
    sources: Counter[str] = Counter()
    seen: set[bytes] = set()
    num_texts = num_words = 0
    for unit in descriptions.units:
        for row in iter_rows(descriptions.folder.read_table(part_name(unit))):
            sources[row["source"]] += 1
            num_texts += len(row["descriptions"])
            num_words += sum(len(text.split()) for text in row["descriptions"])
            seen.update(_short_hash(text) for text in row["descriptions"])
            picks[row["modality"]].offer(row["clip_id"], row | {"unit": unit})
    examples = {
        modality: [_described(row, clips, listening) for row in picks[modality].rows()]
        for modality in sorted(picks)
    }
    mean = num_words / num_texts if num_texts else 0.0
    named = dict(sorted(sources.items()))
    return Texts(sum(sources.values()), num_texts, len(seen), mean, named, examples)


def rejects_of(
    stages: Mapping[str, StageFolder], per_reason: int, listening: Listening
) -> list[Rejects]:
    """Rejects of every stage, the most frequent reason of each first, with some to hear."""
    return [
        rejects for stage in stages.values() for rejects in _of_stage(stage, per_reason, listening)
    ]


def _of_stage(stage: StageFolder, per_reason: int, listening: Listening) -> Iterator[Rejects]:
    picks: defaultdict[str, _Smallest] = defaultdict(lambda: _Smallest(per_reason))
    corpora: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for name in stage.names("rejects"):
        for row in iter_rows(stage.folder.read_table(name)):
            corpora[row["reason"]][row["corpus"]] += 1
            key = f"{row['clip_id']} {row['uri']} {row['line']} {row['field']} {row['detail']}"
            picks[row["reason"]].offer(key, row)
    for reason, counts in sorted(corpora.items(), key=lambda item: (-item[1].total(), item[0])):
        yield Rejects(
            stage.stage,
            reason,
            counts.total(),
            counts.total() / stage.card["read"],
            counts.most_common(3),
            [_refused(row, listening) for row in picks[reason].rows()],
        )


def _described(row: dict[str, Any], clips: StageFolder | None, listening: Listening) -> Described:
    audio, silence = "", "no clips/ beside the descriptions"
    if clips is not None and row["unit"] in clips.units:
        columns = ["clip_id", "uri", "start_s", "end_s"]
        table = clips.clips.read(row["unit"], columns).to_pylist()
        for clip in table:
            if clip["clip_id"] == row["clip_id"]:
                audio, silence = listening.piece(clip["uri"], clip["start_s"], clip["end_s"])
    return Described(
        row["clip_id"],
        row["modality"],
        row["source"],
        row["descriptions"],
        row["transcript"] or "",
        row["language"] or "",
        audio,
        silence,
    )


def _refused(row: dict[str, Any], listening: Listening) -> Refused:
    place = row["uri"]
    if row["line"] is not None:
        place += f", line {row['line']}"
    if row["field"]:
        place += f", {row['field']}"
    audio, silence = "", ""
    if row["reason"] == Reason.WORKER_DIED:
        silence = "not opened: it killed the process that did"
    elif row["clip_id"] and row["uri"]:
        audio, silence = listening.piece(row["uri"])
    return Refused(row["clip_id"] or "", row["corpus"], row["detail"], place, audio, silence)


class _Smallest:
    """The few rows whose keys hash lowest: a fair choice that does not depend on the order."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._kept: list[tuple[bytes, str, dict[str, Any]]] = []

    def offer(self, key: str, row: dict[str, Any]) -> None:
        """Keep the row if it is among the lowest."""
        place = (_short_hash(key), key, row)
        if len(self._kept) < self._count or place[:2] < self._kept[-1][:2]:
            self._kept = sorted([*self._kept, place], key=lambda kept: kept[:2])[: self._count]

    def rows(self) -> list[dict[str, Any]]:
        """What was kept."""
        return [row for _, _, row in self._kept]


def _short_hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).digest()
