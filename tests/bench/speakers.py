"""How well a speaker encoder tells the voices of a `clips/` directory apart.

    python -m tests.bench.speakers --clips DIR [--encoder DIR] [--per-speaker 10]

Prints the equal error rate over all pairs of clips of a corpus, and how often the nearest other
clip is of the same speaker.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.acoustics.speaker_models import load_speaker_encoder
from pipeline.audio.files import read_audio
from pipeline.clip_tables import ClipTables
from pipeline.storage import Folder, iter_rows


def main() -> None:
    """Embed some clips of every speaker, and compare each with each."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.speakers", description=__doc__)
    parser.add_argument("--clips", required=True, metavar="DIR", help="what ingest wrote")
    parser.add_argument("--encoder", metavar="DIR", help="published encoder; built-in otherwise")
    parser.add_argument("--per-speaker", type=int, default=10, metavar="N", help="clips at most")
    options = parser.parse_args()
    encoder = load_speaker_encoder(options.encoder)
    for corpus, rows in sorted(chosen(Folder.at(options.clips), options.per_speaker).items()):
        speakers = np.array([row["speaker"] for row in rows])
        if len(set(speakers)) < 2 or len(set(speakers)) == len(speakers):
            continue
        vectors = []
        for row in rows:
            audio = read_audio(row["uri"], row["start_s"], row["end_s"])
            vectors.append(encoder.embed(audio.waveform, audio.sample_rate))
        likeness = np.array(vectors) @ np.array(vectors).T
        is_same = speakers[:, None] == speakers[None]
        pairs = np.triu_indices(len(speakers), 1)
        rate = equal_error_rate(likeness[pairs], is_same[pairs])
        np.fill_diagonal(likeness, -np.inf)
        nearest = float(is_same[np.arange(len(speakers)), likeness.argmax(axis=1)].mean())
        print(
            f"{corpus}: {encoder.name}, {len(set(speakers))} speakers, {len(speakers)} clips: "
            f"equal error rate {rate:.1%}, nearest clip of the same speaker {nearest:.1%}"
        )


def chosen(clips: Folder, per_speaker: int) -> dict[str, list[dict[str, Any]]]:
    """The first clips of every speaker, by corpus."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    counts: dict[str, int] = defaultdict(int)
    for row in iter_rows(ClipTables.of(clips).read_all()):
        if row["modality"] == "speech" and row["speaker"]:
            counts[row["speaker"]] += 1
            if counts[row["speaker"]] <= per_speaker:
                found[row["corpus"]].append(row)
    return found


def equal_error_rate(likeness: Sequence[float] | np.ndarray, is_same: np.ndarray) -> float:
    """Where as many pairs of one speaker are refused as pairs of two are accepted."""
    order = np.argsort(likeness)
    same = np.asarray(is_same)[order]
    refused = np.cumsum(same) / max(1, same.sum())
    accepted = 1 - np.cumsum(~same) / max(1, (~same).sum())
    at = int(np.argmin(np.abs(refused - accepted)))
    return float((refused[at] + accepted[at]) / 2)


if __name__ == "__main__":
    main()
