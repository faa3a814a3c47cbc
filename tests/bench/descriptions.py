"""What composed descriptions say: content, length, variety, and likeness to people's captions.

`python -m tests.bench.descriptions --musiccaps CSV --prepared DIR --embedder DIR`: texts are
composed from tags and measurements alone, captions held back, and compared with the captions. The
embedder is a folder with a sentence-transformers model, such as all-MiniLM-L6-v2; without it the
likeness is left out.
"""

from __future__ import annotations

import argparse
import ast
import csv
import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from pipeline.data.descriptions.facts import facts_of
from pipeline.data.descriptions.templates import describe_clip
from pipeline.data.descriptions.variety import VarietyMeter
from pipeline.storage import Folder
from tests.factories.clips import clip_values

_STOP = frozenset(
    re.findall(
        r"\w+",
        "the and for with that this from has have are was were its his her she they them there "
        "which into over very some sound sounds music recording audio song piece track tune",
    )
)
_BATCH = 64
Item = tuple[dict[str, Any], dict[str, float], str]
"""Row of a clip, what was measured, and the caption that it is compared with."""


def musiccaps(path: Path, count: int, rng: random.Random) -> list[Item]:
    """Rows of MusicCaps with tags only, and measurements at random."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = rng.sample(list(csv.DictReader(file)), count)
    return [
        (
            clip_values(
                clip_id=row["ytid"], modality="music", tags=ast.literal_eval(row["aspect_list"])
            ),
            _measurements(rng),
            row["caption"],
        )
        for row in rows
    ]


def _measurements(rng: random.Random) -> dict[str, float]:
    return {
        "level_dbfs": rng.gauss(-20, 8),
        "bandwidth_hz": rng.choice([4000.0, 8000.0, 16_000.0]),
        "brightness_hz": rng.lognormvariate(7.6, 0.6),
        "dynamic_range_db": abs(rng.gauss(12, 8)),
        "level_trend_db": rng.gauss(0, 6),
        "onset_rate_hz": abs(rng.gauss(2.5, 1.6)),
        "stereo_width": abs(rng.gauss(0.08, 0.08)),
        "tempo_bpm": rng.gauss(110, 25),
        "beat_strength": rng.random() * 0.8,
        "key_number": float(rng.randrange(24)),
        "key_confidence": rng.random() * 0.4,
    }


def prepared(folder: Path, count: int, rng: random.Random) -> Iterator[tuple[str, list[Item]]]:
    """Clips of each modality that have captions, from the directories that `prepare` wrote."""
    clips, latents = (Folder.at(folder / name) for name in ("clips", "latents"))
    measured: dict[str, dict[str, float]] = {}
    for name in latents.listed("parts/", ".parquet"):
        for row in latents.read_table(name, ["clip_id", "attributes"]).to_pylist():
            measured[row["clip_id"]] = json.loads(row["attributes"])
    found: dict[str, list[dict[str, Any]]] = {}
    for name in clips.listed("parts/", ".parquet"):
        for row in clips.read_table(name).to_pylist():
            if row["captions"] and row["clip_id"] in measured:
                found.setdefault(row["modality"], []).append(row)
    for modality, rows in sorted(found.items()):
        chosen = rng.sample(rows, min(count, len(rows)))
        yield modality, [(row, measured[row["clip_id"]], row["captions"][0]) for row in chosen]


def has_content(text: str, clip: Mapping[str, Any]) -> bool:
    """Whether a text holds a word of the clip's tags, or of who speaks."""
    said = [*clip["tags"], clip["speaker_sex"] or ""]
    said += {"female": ["woman", "her"], "male": ["man", "his"]}.get(clip["speaker_sex"], [])
    known = {_stem(word) for tag in said for word in re.findall(r"\w{3,}", tag.casefold())}
    return bool(known & {_stem(w) for w in re.findall(r"\w{3,}", text.casefold())} - _STOP)


def _stem(word: str) -> str:
    return re.sub(r"(?:ing|s|ed)$", "", word)


class Embedder:
    """Mean-pooled, normalised embeddings of a transformers encoder."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModel, AutoTokenizer  # only here, and slow to import

        self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self._model = AutoModel.from_pretrained(folder, local_files_only=True).eval()

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str]) -> torch.Tensor:
        """One row per text."""
        rows = []
        for start in range(0, len(texts), _BATCH):
            batch = self._tokenizer(
                list(texts[start : start + _BATCH]),
                padding=True, truncation=True, max_length=128, return_tensors="pt",
            )  # fmt: skip
            hidden = self._model(**batch).last_hidden_state
            mask = batch["attention_mask"][..., None]
            rows.append((hidden * mask).sum(1) / mask.sum(1))
        return torch.nn.functional.normalize(torch.cat(rows), dim=-1)


def row(name: str, items: Sequence[Item], embedder: Embedder | None) -> str:
    """One line of the table."""
    meter, texts, captions, with_content = VarietyMeter(), [], [], 0
    for clip, measured, caption in items:
        facts = facts_of(clip | {"captions": [], "title": None}, measured, max_words=80)
        for text in describe_clip(facts, seed=clip["clip_id"], count=4, max_words=80)[0]:
            meter.add(text)
            texts.append(text)
            captions.append(caption)
            with_content += has_content(text, clip)
    variety, likeness = meter.result(), "-"
    if embedder is not None:
        likeness = f"{(embedder(texts) * embedder(captions)).sum(1).mean().item():.3f}"
    return (
        f"| {name} | {len(texts)} | {100 * with_content / len(texts):.1f} % | {likeness} | "
        f"{variety.words_per_text:.1f} | {100 * variety.duplicate_share:.1f} % | "
        f"{variety.distinct_forms} | {variety.type_token_ratio_1000} |"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--musiccaps", type=Path, help="musiccaps-public.csv")
    parser.add_argument("--prepared", type=Path, help="folder with clips/ and latents/")
    parser.add_argument("--embedder", type=Path, help="folder of a sentence embedding model")
    parser.add_argument("--count", type=int, default=400, help="clips of each kind")
    options = parser.parse_args()
    rng = random.Random(0)
    embedder = Embedder(options.embedder) if options.embedder else None
    print("| clips | texts | with content | likeness | words | repeated | forms | TTR 1000 |")
    print("|---|---|---|---|---|---|---|---|")
    if options.musiccaps:
        items = musiccaps(options.musiccaps, options.count, rng)
        print(row("MusicCaps tags", items, embedder), flush=True)
    if options.prepared:
        for modality, items in prepared(options.prepared, options.count, rng):
            print(row(f"prepared {modality}", items, embedder), flush=True)


if __name__ == "__main__":
    main()
