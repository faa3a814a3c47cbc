"""clips/ + measured attributes -> descriptions/: several description-style texts of every clip."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from pydantic import Field

from pipeline.data.attributes import speaking_rate
from pipeline.data.descriptions.facts import facts_of
from pipeline.data.descriptions.templates import GRAMMAR_VERSION, describe_clip
from pipeline.data.rejects import Reason, reject
from pipeline.data.schema import DESCRIPTIONS, Reject
from pipeline.data.stage import (
    Resources,
    Unit,
    UnitOutput,
    hours_key,
    input_digest,
    run_stage,
)
from pipeline.errors import PipelineError
from pipeline.settings import Settings, digest_of
from pipeline.storage import Folder, table_bytes

STAGE = "describe"


class DescribeSettings(Settings):
    """How clips are put into words."""

    texts_per_clip: int = Field(default=4, ge=1)
    """Descriptions of a clip; training draws one at a time."""
    seed: int = 0
    """Another seed, other wording."""
    max_words: int = Field(default=80, ge=1)
    """Longest description; captions of the corpus beyond it are cut at a sentence."""
    grammar_version: int = GRAMMAR_VERSION
    """Of the built-in wording; recorded, so that new wording redoes the texts."""
    max_reject_share: float = Field(default=0.5, ge=0, le=1)
    """Above this share of rejected clips, those without latents included, it fails."""
    resources: Resources = Resources()
    """Workers."""


def describe(
    clips: Folder, latents: Folder, output: Folder, settings: DescribeSettings
) -> dict[str, Any]:
    """Describe every clip that has latents; no audio is read.

    Returns:
        The card.

    Raises:
        IncompleteError: If an input is not complete.
        PipelineError: If the latents were made of other clips.
    """
    digests = {"clips": input_digest(clips), "latents": input_digest(latents)}
    if latents.card()["inputs"]["clips"] != digests["clips"]:
        raise PipelineError(f"{latents.uri} was made of other clips than those given; run encode")
    return run_stage(
        output,
        stage=STAGE,
        settings=settings,
        inputs=digests,
        units=list(_plan(clips, latents)),
        worker=DescribeWorker,
        worker_kwargs={"clips": clips, "latents": latents, "settings": settings},
        resources=settings.resources,
        max_reject_share=settings.max_reject_share,
    )


def _plan(clips: Folder, latents: Folder) -> Iterator[Unit]:
    clip_files, latent_files = clips.card()["files"], latents.card()["files"]
    for name in clips.child("parts").files(".parquet"):
        part = name.removeprefix("part-").removesuffix(".parquet")
        digest = digest_of(
            [clip_files[f"parts/{name}"], latent_files[f"parts/latents-{part}.parquet"]]
        )
        yield Unit(part, digest, {"part": part})


class DescribeWorker:
    """Describes the clips of one part."""

    def __init__(self, clips: Folder, latents: Folder, settings: DescribeSettings) -> None:
        self._clips, self._latents, self._settings = clips, latents, settings
        self._recipe = digest_of(
            settings.model_dump(include={"texts_per_clip", "seed", "max_words", "grammar_version"})
        )

    def process(self, unit: Unit) -> UnitOutput:
        """Texts of a part."""
        part = unit.payload["part"]
        table = self._latents.read_table(f"parts/latents-{part}.parquet", ["clip_id", "attributes"])
        measured = {row["clip_id"]: json.loads(row["attributes"]) for row in table.to_pylist()}
        rows: list[dict[str, Any]] = []
        rejects: list[Reject] = []
        totals: dict[str, float] = {}
        clips = self._clips.read_table(f"parts/part-{part}.parquet").to_pylist()
        for clip in clips:
            if clip["clip_id"] not in measured:
                detail = "the clip has no latents; the rejects of encode say why"
                rejects.append(_reject(clip, Reason.NO_LATENTS, detail))
                continue
            texts, source = self._texts(clip, measured[clip["clip_id"]])
            if not texts:
                detail = "no caption, tag, title or measurement to put into words"
                rejects.append(_reject(clip, Reason.NO_DESCRIPTION, detail))
                continue
            rows.append(self._row(clip, texts, source))
            key = hours_key(clip["modality"], clip["language"])
            totals[key] = totals.get(key, 0.0) + clip["duration_s"] / 3600
        files = {
            f"parts/part-{part}.parquet": table_bytes(
                pa.Table.from_pylist(rows, schema=DESCRIPTIONS)
            )
        }
        return UnitOutput(files, len(clips), len(rows), rejects, totals)

    def _texts(self, clip: dict[str, Any], measured: dict[str, float]) -> tuple[list[str], str]:
        attributes = dict(measured)
        rate = speaking_rate(clip["transcript"] or "", attributes.get("active_s", 0.0))
        if rate is not None:
            attributes["speaking_rate_syllables_per_s"] = rate
        facts = facts_of(clip, attributes, max_words=self._settings.max_words)
        return describe_clip(
            facts,
            seed=f"{clip['clip_id']}\n{self._recipe}",
            count=self._settings.texts_per_clip,
            max_words=self._settings.max_words,
        )

    def _row(self, clip: dict[str, Any], texts: list[str], source: str) -> dict[str, Any]:
        return {
            "clip_id": clip["clip_id"],
            "descriptions": texts,
            "transcript": clip["transcript"],
            "language": clip["language"],
            "modality": clip["modality"],
            "source": source,
            "recipe_digest": self._recipe,
        }


def _reject(clip: dict[str, Any], reason: Reason, detail: str) -> Reject:
    return reject(
        reason,
        detail,
        stage=STAGE,
        corpus=clip["corpus"],
        uri=clip["uri"],
        clip_id=clip["clip_id"],
    )
