"""latents/ + descriptions/ -> train-shards/: WebDataset tars and the index that training reads."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pyarrow as pa
from pydantic import Field

from model.text import Prompt, render
from pipeline.data.rejects import Reason, reject
from pipeline.data.schema import INDEX, SPLITS, Reject
from pipeline.data.shards import JSON, LOG_STD, MEAN, read_npy, tar_bytes
from pipeline.data.stage import (
    Resources,
    Unit,
    UnitOutput,
    hours_key,
    input_digest,
    run_stage,
)
from pipeline.data.stats import LatentSums, latent_statistics
from pipeline.errors import PipelineError
from pipeline.settings import Settings, digest_of
from pipeline.storage import Folder, table_bytes

logger = logging.getLogger(__name__)

STAGE = "shard"
_JSON_BYTES = 1024


class ShardSettings(Settings):
    """How clips are laid into shards."""

    target_bytes: int = Field(default=256 * 2**20, ge=1)
    """Size of a shard aimed at, bytes."""
    parts_per_group: int = Field(default=64, ge=1)
    """Clips are mixed within this many input parts: a worker never reads more than two groups."""
    max_reject_share: float = Field(default=0.5, ge=0, le=1)
    """Above this share of rejected clips, those of earlier stages included, it fails."""
    resources: Resources = Resources()
    """Workers."""


def shard(
    clips: Folder, latents: Folder, descriptions: Folder, output: Folder, settings: ShardSettings
) -> dict[str, Any]:
    """Join clips, latents and descriptions into shards of like size, each of one split.

    Returns:
        The card; with codec facts, `silence`, `latent_stats` of the train split, and `splits`.

    Raises:
        IncompleteError: If an input is not complete.
        PipelineError: If latents or descriptions were made of other clips.
    """
    inputs = {"clips": clips, "latents": latents, "descriptions": descriptions}
    digests = {name: input_digest(folder) for name, folder in inputs.items()}
    _check_lineage(latents, descriptions, digests)
    source = latents.card()
    card = run_stage(
        output,
        stage=STAGE,
        settings=settings,
        inputs=digests,
        units=_plan(clips, latents, descriptions, settings),
        worker=ShardWorker,
        worker_kwargs={
            **inputs,
            "sample_rate": source["codec"]["sample_rate"],
        },
        resources=settings.resources,
        max_reject_share=settings.max_reject_share,
        card_extra=lambda records: _facts(records, source),
    )
    if card["latent_stats"]["num_dead"]:
        logger.warning(
            "%d of %d latent dimensions hardly move; the codec may be undertrained",
            card["latent_stats"]["num_dead"],
            card["codec"]["latent_dim"],
        )
    return card


def _check_lineage(latents: Folder, descriptions: Folder, digests: dict[str, str]) -> None:
    for name, folder in (("latents", latents), ("descriptions", descriptions)):
        if folder.card()["inputs"]["clips"] != digests["clips"]:
            raise PipelineError(
                f"{folder.uri} was made of other clips than those given; run the stage that "
                f"writes {name} again"
            )
    if descriptions.card()["inputs"]["latents"] != digests["latents"]:
        raise PipelineError(
            f"{descriptions.uri} was made with other latents than those given; run describe again"
        )


def _facts(records: list[dict[str, Any]], source: dict[str, Any]) -> dict[str, Any]:
    splits: dict[str, list[str]] = {}
    for record in records:
        splits.setdefault(record["details"]["split"], []).append(f"train-{record['unit']}")
    train = [r["details"]["sums"] for r in records if r["details"]["split"] == SPLITS[0]]
    return {
        "codec": source["codec"],
        "speaker": source["speaker"],
        "silence": source["silence"],
        "latent_stats": latent_statistics(train),
        "splits": splits,
    }


@dataclass(frozen=True)
class _Item:
    """A clip to be placed."""

    clip_id: str
    part: str
    size_bytes: int


def _plan(
    clips: Folder, latents: Folder, descriptions: Folder, settings: ShardSettings
) -> list[Unit]:
    """Cut the clips of each split, in an order of hashes, into runs of like size."""
    sums = {
        name: folder.card()["files"]
        for name, folder in (("clips", clips), ("latents", latents), ("descriptions", descriptions))
    }
    units: list[Unit] = []
    for split, items in _items(clips, latents, settings).items():
        for run in _runs(items, settings.target_bytes):
            parts: dict[str, list[str]] = {}
            for item in run:
                parts.setdefault(item.part, []).append(item.clip_id)
            digest = digest_of(
                {
                    part: [
                        sums["clips"].get(f"parts/part-{part}.parquet"),
                        sums["latents"].get(f"shards/latents-{part}.tar"),
                        sums["latents"].get(f"parts/latents-{part}.parquet"),
                        sums["descriptions"].get(f"parts/part-{part}.parquet"),
                        ids,
                    ]
                    for part, ids in parts.items()
                }
            )
            units.append(Unit(f"{len(units):05d}", digest, {"split": split, "parts": parts}))
    return units


def _items(clips: Folder, latents: Folder, settings: ShardSettings) -> dict[str, list[_Item]]:
    found: dict[str, list[tuple[int, str, _Item]]] = {}
    for number, part in enumerate(_part_names(clips)):
        table = latents.read_table(f"parts/latents-{part}.parquet").select(
            ["clip_id", "mean_size", "log_std_size"]
        )
        sizes = {
            row["clip_id"]: row["mean_size"] + row["log_std_size"] + _JSON_BYTES
            for row in table.to_pylist()
        }
        for row in clips.read_table(f"parts/part-{part}.parquet", ["clip_id", "split"]).to_pylist():
            order = hashlib.sha256(f"shard:{row['clip_id']}".encode()).hexdigest()
            item = _Item(row["clip_id"], part, sizes.get(row["clip_id"], 0))
            place = (number // settings.parts_per_group, order, item)
            found.setdefault(row["split"], []).append(place)
    return {
        split: [item for _, _, item in sorted(found[split], key=lambda place: place[:2])]
        for split in SPLITS
        if split in found
    }


def _runs(items: Sequence[_Item], target_bytes: int) -> Iterator[list[_Item]]:
    total = sum(item.size_bytes for item in items)
    num_runs = max(1, round(total / target_bytes))
    runs: list[list[_Item]] = [[] for _ in range(num_runs)]
    before = 0
    for item in items:
        middle = before + item.size_bytes / 2
        runs[min(num_runs - 1, int(middle * num_runs / total)) if total else 0].append(item)
        before += item.size_bytes
    yield from (run for run in runs if run)


def _part_names(clips: Folder) -> list[str]:
    names = clips.listed("parts/", ".parquet")
    return [name.removeprefix("parts/part-").removesuffix(".parquet") for name in names]


class ShardWorker:
    """Writes one shard and its index."""

    def __init__(
        self, clips: Folder, latents: Folder, descriptions: Folder, sample_rate: int
    ) -> None:
        self._latents = latents
        self._sample_rate = sample_rate
        # Neighbouring shards draw on the same parts.
        self._clip_rows = lru_cache(4)(
            lambda part: _by_id(clips.read_table(f"parts/part-{part}.parquet"))
        )
        self._latent_rows = lru_cache(4)(
            lambda part: _by_id(latents.read_table(f"parts/latents-{part}.parquet"))
        )
        self._description_rows = lru_cache(4)(
            lambda part: _by_id(descriptions.read_table(f"parts/part-{part}.parquet"))
        )

    def process(self, unit: Unit) -> UnitOutput:
        """Tar, index, sums of latents, and clips that lack latents or a description."""
        members: dict[str, bytes] = {}
        rows: list[dict[str, Any]] = []
        rejects: list[Reject] = []
        totals: dict[str, float] = {}
        sums: dict[str, LatentSums] = {}
        for part, clip_ids in unit.payload["parts"].items():
            for clip_id in clip_ids:
                unit.beat()
                clip = self._clip_rows(part)[clip_id]
                found = self._latent_rows(part).get(clip_id)
                text = self._description_rows(part).get(clip_id)
                if found is None or text is None:
                    rejects.append(_missing(clip, "latents" if found is None else "descriptions"))
                    continue
                row = self._row(clip, found, text)
                members |= self._members(row, found, text, sums)
                key = hours_key(clip["modality"], clip["language"])
                totals[key] = totals.get(key, 0.0) + found["num_samples"] / self._sample_rate / 3600
                rows.append(row)
        tar, places = tar_bytes(members)
        name = f"train-{unit.name}"
        index = [_placed(row, name, places) for row in sorted(rows, key=lambda row: row["key"])]
        files = {
            f"shards/{name}.tar": tar,
            f"index/{name}.parquet": table_bytes(pa.Table.from_pylist(index, schema=INDEX)),
        }
        details = {
            "split": unit.payload["split"],
            "sums": {modality: value.to_json() for modality, value in sorted(sums.items())},
        }
        return UnitOutput(files, len(rows) + len(rejects), len(rows), rejects, totals, details)

    def _row(
        self, clip: dict[str, Any], found: dict[str, Any], text: dict[str, Any]
    ) -> dict[str, Any]:
        prompt = Prompt(
            description=max(text["descriptions"], key=lambda value: len(value.encode())),
            transcript=text["transcript"],
            language=text["language"],
            duration_s=found["num_samples"] / self._sample_rate,
            is_singing=clip["is_singing"],
        )
        return {
            "clip_id": clip["clip_id"],
            "key": found["key"],
            "split": clip["split"],
            "modality": clip["modality"],
            "corpus": clip["corpus"],
            "language": clip["language"],
            "speaker": clip["speaker"],
            "is_singing": clip["is_singing"],
            "has_transcript": text["transcript"] is not None,
            "num_frames": found["num_frames"],
            "text_bytes": len(render(prompt).encode()),
            "speaker_embedding": found["speaker_embedding"],
        }

    def _members(
        self,
        row: dict[str, Any],
        found: dict[str, Any],
        text: dict[str, Any],
        sums: dict[str, LatentSums],
    ) -> dict[str, bytes]:
        key, tar = found["key"], f"shards/{found['shard']}.tar"
        mean = self._latents.read_range(tar, found["mean_offset"], found["mean_size"])
        log_std = self._latents.read_range(tar, found["log_std_offset"], found["log_std_size"])
        sums.setdefault(row["modality"], LatentSums()).add(
            read_npy(mean, f"{tar}: {key}.{MEAN}"), read_npy(log_std, f"{tar}: {key}.{LOG_STD}")
        )
        facts = {
            "clip_id": row["clip_id"],
            "split": row["split"],
            "modality": row["modality"],
            "descriptions": text["descriptions"],
            "transcript": text["transcript"],
            "language": text["language"],
            "is_singing": row["is_singing"],
            "duration_s": found["num_samples"] / self._sample_rate,
        }
        return {
            f"{key}.{MEAN}": mean,
            f"{key}.{LOG_STD}": log_std,
            f"{key}.{JSON}": json.dumps(facts, sort_keys=True, ensure_ascii=False).encode(),
        }


def _placed(
    row: dict[str, Any], shard_name: str, places: dict[str, tuple[int, int]]
) -> dict[str, Any]:
    spots: dict[str, Any] = {"shard": shard_name}
    for column, extension in (("mean", MEAN), ("log_std", LOG_STD), ("json", JSON)):
        offset, size = places[f"{row['key']}.{extension}"]
        spots |= {f"{column}_offset": offset, f"{column}_size": size}
    return row | spots


def _by_id(table: pa.Table) -> dict[str, dict[str, Any]]:
    return {row["clip_id"]: row for row in table.to_pylist()}


def _missing(clip: dict[str, Any], where: str) -> Reject:
    reason = Reason.NO_LATENTS if where == "latents" else Reason.NO_DESCRIPTION
    return reject(
        reason,
        f"the clip is not in {where}; the rejects of that stage say why",
        stage=STAGE,
        corpus=clip["corpus"],
        uri=clip["uri"],
        clip_id=clip["clip_id"],
    )
