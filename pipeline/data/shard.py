"""latents/ + descriptions/ -> train-shards/: the index and the texts that training reads.

Latents stay where `encode` wrote them: the index leads to them by tar and offset, and to the text
of each clip by file and offset. Units of two kinds share the work: those that sum latents up
depend on the latents alone, those that write index and texts on the descriptions too. New wording
therefore reads and writes no latents.
"""

from __future__ import annotations

import json
import logging
import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
from pydantic import Field

from model.text import Prompt, render
from pipeline.clip_tables import ClipTables
from pipeline.data.rejects import Reason, reject_clip
from pipeline.data.schema import INDEX, SPLITS, Reject
from pipeline.data.shards import LOG_STD, MEAN, read_npy
from pipeline.data.stats import LatentSums, latent_statistics
from pipeline.data.units.commit_log import Record
from pipeline.data.units.stage import (
    Resources,
    Unit,
    UnitOutput,
    hours_key,
    run_stage,
)
from pipeline.errors import PipelineError
from pipeline.settings import Settings, digest_of
from pipeline.storage import Folder, table_bytes

logger = logging.getLogger(__name__)

STAGE = "shard"
_SUMS = "sums-"
"""Beginning of the names of units that sum latents up."""
_OFFSETS = ("mean_offset", "mean_size", "log_std_offset", "log_std_size")


class ShardSettings(Settings):
    """Settings of `shard`."""

    parts_per_unit: int = Field(default=64, ge=1)
    """Number of parts of `clips/` that one unit of work reads and one index file holds."""
    max_reject_share: float = Field(default=0.5, ge=0, le=1)
    """Share of rejected clips, those of earlier stages included, above which the stage fails."""
    resources: Resources = Resources()
    """Workers."""


def shard(
    clips: Folder, latents: Folder, descriptions: Folder, output: Folder, settings: ShardSettings
) -> dict[str, Any]:
    """Join clips, latents and descriptions into an index with texts.

    Returns:
        The card; with codec facts, `silence`, `latent_stats` of the train split, clips by split,
        and `latents`: where the latents lie, relative to the output if both are neighbours.

    Raises:
        IncompleteError: If an input is not complete.
        PipelineError: If latents or descriptions were made of other clips.
    """
    inputs = {"clips": clips, "latents": latents, "descriptions": descriptions}
    digests = {name: folder.digest for name, folder in inputs.items()}
    _check_lineage(latents, descriptions, digests)
    source = latents.card()
    place = _relative(latents, output)
    card = run_stage(
        output,
        stage=STAGE,
        settings=settings,
        inputs=digests,
        units=list(_plan(clips, latents, descriptions, settings)),
        worker=ShardWorker,
        worker_kwargs={
            **inputs,
            "sample_rate": source["codec"]["sample_rate"],
        },
        resources=settings.resources,
        max_reject_share=settings.max_reject_share,
        card_extra=lambda records: _facts(records, source) | {"latents": place},
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


def _relative(latents: Folder, output: Folder) -> str:
    """A path that holds after both directories were moved together; else the URI."""
    parent, name = posixpath.split(latents.uri)
    return f"../{name}" if parent == posixpath.dirname(output.uri) else latents.uri


def _facts(records: Iterable[Record], source: dict[str, Any]) -> dict[str, Any]:
    sums = [r["details"]["sums"] for r in records if r["unit"].startswith(_SUMS)]
    splits = Counter[str]()
    for record in records:
        splits.update(record["details"].get("splits", {}))
    return {
        "codec": source["codec"],
        "speaker": source["speaker"],
        "silence": source["silence"],
        "latent_stats": latent_statistics(sums),
        "splits": dict(sorted(splits.items())),
    }


def _plan(
    clips: Folder, latents: Folder, descriptions: Folder, settings: ShardSettings
) -> Iterator[Unit]:
    """Two units for every run of parts; nothing is read but the cards."""
    of_clips = ClipTables.of(clips).digests()
    of_latents, of_texts = latents.file_digests(), descriptions.file_digests("parts/")
    parts = list(of_clips)
    for number in range(0, len(parts), settings.parts_per_unit):
        run = parts[number : number + settings.parts_per_unit]
        rows = [[of_clips[part], of_latents[f"parts/latents-{part}.parquet"]] for part in run]
        tars = [of_latents.get(f"shards/latents-{part}.tar") for part in run]
        texts = [of_texts.get(f"parts/part-{part}.parquet") for part in run]
        name = f"{number // settings.parts_per_unit:08d}"
        yield Unit(f"{_SUMS}{name}", digest_of([rows, tars]), {"parts": run})
        yield Unit(f"train-{name}", digest_of([rows, tars, texts]), {"parts": run})


class ShardWorker:
    """Writes one index file with its texts, or sums up the latents of the train split."""

    def __init__(
        self, clips: Folder, latents: Folder, descriptions: Folder, sample_rate: int
    ) -> None:
        self._clips = ClipTables.of(clips)
        self._latents, self._descriptions = latents, descriptions
        self._sample_rate = sample_rate

    def process(self, unit: Unit) -> UnitOutput:
        """Index and texts, with rejects for clips without latents or text; or the sums."""
        return self._sums(unit) if unit.name.startswith(_SUMS) else self._index(unit)

    def _joined(self, part: str) -> Iterator[tuple[dict[str, Any], dict[str, Any] | None]]:
        found = _by_id(self._latents.read_table(f"parts/latents-{part}.parquet"))
        for clip in self._clips.read(part).to_pylist():
            yield clip, found.get(clip["clip_id"])

    def _sums(self, unit: Unit) -> UnitOutput:
        sums: dict[str, LatentSums] = {}
        for part in unit.payload["parts"]:
            for clip, found in self._joined(part):
                unit.beat()
                if found is None or clip["split"] != SPLITS[0]:
                    continue
                tar, key = f"shards/{found['shard']}.tar", found["key"]
                mean, log_std = (
                    read_npy(
                        self._latents.read_range(
                            tar, found[f"{name}_offset"], found[f"{name}_size"]
                        ),
                        f"{tar}: {key}.{member}",
                    )
                    for name, member in (("mean", MEAN), ("log_std", LOG_STD))
                )
                sums.setdefault(clip["modality"], LatentSums()).add(mean, log_std)
        details = {"sums": {modality: value.to_json() for modality, value in sorted(sums.items())}}
        return UnitOutput({}, 0, 0, details=details)

    def _index(self, unit: Unit) -> UnitOutput:
        rows: list[dict[str, Any]] = []
        texts = bytearray()
        rejects: list[Reject] = []
        totals: dict[str, float] = {}
        splits = Counter[str]()
        for part in unit.payload["parts"]:
            described = _by_id(self._descriptions.read_table(f"parts/part-{part}.parquet"))
            for clip, found in self._joined(part):
                unit.beat()
                text = described.get(clip["clip_id"])
                if found is None or text is None:
                    rejects.append(_missing(clip, "latents" if found is None else "descriptions"))
                    continue
                line = self._text(clip, found, text)
                place = {"texts": unit.name, "json_offset": len(texts), "json_size": len(line)}
                texts += line + b"\n"
                rows.append(self._row(clip, found, text) | place)
                key = hours_key(clip["modality"], clip["language"])
                totals[key] = totals.get(key, 0.0) + found["num_samples"] / self._sample_rate / 3600
                splits[clip["split"]] += 1
        index = pa.Table.from_pylist(sorted(rows, key=lambda row: row["key"]), schema=INDEX)
        files = {
            f"index/{unit.name}.parquet": table_bytes(index),
            f"texts/{unit.name}.jsonl": bytes(texts),
        }
        num_read = len(rows) + len(rejects)
        return UnitOutput(files, num_read, len(rows), rejects, totals, {"splits": splits})

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
            "shard": found["shard"],
            **{name: found[name] for name in _OFFSETS},
        }

    def _text(self, clip: dict[str, Any], found: dict[str, Any], text: dict[str, Any]) -> bytes:
        facts = {
            "clip_id": clip["clip_id"],
            "split": clip["split"],
            "modality": clip["modality"],
            "descriptions": text["descriptions"],
            "transcript": text["transcript"],
            "language": text["language"],
            "is_singing": clip["is_singing"],
            "duration_s": found["num_samples"] / self._sample_rate,
        }
        return json.dumps(facts, sort_keys=True, ensure_ascii=False).encode()


def _by_id(table: pa.Table) -> dict[str, dict[str, Any]]:
    return {row["clip_id"]: row for row in table.to_pylist()}


def _missing(clip: dict[str, Any], where: str) -> Reject:
    reason = Reason.NO_LATENTS if where == "latents" else Reason.NO_DESCRIPTION
    detail = f"the clip is not in {where}; the rejects of that stage say why"
    return reject_clip(clip, reason, detail, STAGE)
