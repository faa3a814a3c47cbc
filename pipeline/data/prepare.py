"""The four stages in a row: ingest, encode, describe, shard; each does only what is missing."""

from __future__ import annotations

import logging
from typing import Any

from model.codec.registry import codec_digest
from pipeline.cluster import kept_ray
from pipeline.data.describe import DescribeSettings, describe
from pipeline.data.encode import EncodeSettings, encode
from pipeline.data.ingest import IngestSettings, ingest
from pipeline.data.shard import ShardSettings, shard
from pipeline.errors import PlannedOnlyError
from pipeline.settings import Settings
from pipeline.storage import Folder

logger = logging.getLogger(__name__)

FOLDERS = {
    "ingest": "clips",
    "encode": "latents",
    "describe": "descriptions",
    "shard": "train-shards",
}
"""Stage to its directory below the output."""


class PrepareSettings(Settings):
    """Settings of the four stages."""

    ingest: IngestSettings = IngestSettings()
    """Corpora to clips."""
    encode: EncodeSettings = EncodeSettings()
    """Clips to latents."""
    describe: DescribeSettings = DescribeSettings()
    """Clips and attributes to descriptions."""
    shard: ShardSettings = ShardSettings()
    """Latents and descriptions to shards."""


def prepare(settings: PrepareSettings, output: Folder, codec: str) -> dict[str, dict[str, Any]]:
    """Bring all four directories below `output` up to date.

    Args:
        settings: Settings of the stages.
        output: Parent directory of the stages.
        codec: Folder of the codec.

    Returns:
        The card of each stage by its name, in order.

    Raises:
        PipelineError: If a stage fails; those before it are kept.
        ValueError: If the codec or a corpus cannot be read.
        PlannedOnlyError: In a dry run, at the first stage that has something to do.
    """
    codec_digest(codec)  # a wrong codec is found before hours of ingest
    clips, latents, descriptions, shards = (output.child(name) for name in FOLDERS.values())
    with kept_ray():  # one instance for all four, and none if nothing is to be done
        return {
            "ingest": ingest(settings.ingest, clips),
            "encode": encode(clips, latents, settings.encode, codec),
            "describe": describe(clips, latents, descriptions, settings.describe),
            "shard": shard(clips, latents, descriptions, shards, settings.shard),
        }


def preview_text(planned: PlannedOnlyError) -> str:
    """What a dry run of `prepare` found: the first stage with work, and those that wait for it."""
    names = list(FOLDERS)
    stage = planned.preview.stage
    first = names.index(stage) if stage in names else 0  # the scan is the first half of ingest
    waiting = [f"{name}: waits for {names[first]}" for name in names[first + 1 :]]
    return "\n".join([str(planned), *waiting])


def summary(cards: dict[str, dict[str, Any]]) -> str:
    """A table of what each stage read, wrote and rejected, the hours, and the reasons."""
    rows = [("stage", "read", "written", "rejected", "hours", "by modality")]
    for stage, card in cards.items():
        hours = card["hours"]["by_modality"]
        rows.append(
            (
                stage,
                f"{card['read']:,}",
                f"{card['written']:,}",
                f"{card['rejected']:,}",
                f"{sum(hours.values()):.3f}",
                ", ".join(f"{name} {value:.3f}" for name, value in hours.items()),
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if column in (0, 5) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    for stage, card in cards.items():
        lines += [f"{stage}: {n:,} x {why}" for why, n in card["rejected_by_reason"].items()]
        for kind, outcomes in card.get("models", {}).items():
            lines += [f"{stage}: {n:,} x {kind} {what}" for what, n in outcomes.items()]
    return "\n".join(lines)
