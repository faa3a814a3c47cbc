"""Join latents/ and descriptions/ to train-shards/: an index over the latents, and the texts."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from jobs.options import add_dry_run, add_retry_rejects, main_of, parser, run, settings_from
from pipeline.data.prepare import summary
from pipeline.data.shard import ShardSettings, shard
from pipeline.storage import Folder


def build_parser() -> ArgumentParser:
    """Parser of the command line."""
    built = parser("shard", __doc__ or "")
    stages = {"clips": "ingest", "latents": "encode", "descriptions": "describe"}
    for name, stage in stages.items():
        built.add_argument(
            f"--{name}", required=True, metavar="DIR", help=f"directory that `{stage}` wrote"
        )
    built.add_argument(
        "--output", required=True, metavar="DIR", help="train-shards/ directory to write"
    )
    add_dry_run(built)
    add_retry_rejects(built)
    return built


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `audiocalm shard`; returns the exit code."""
    options = build_parser().parse_args(argv)
    return run(lambda: shard_clips(options), options)


def shard_clips(options: Namespace) -> None:
    """Run the stage and print its counts."""
    settings = settings_from(
        ShardSettings,
        options,
        resources__dry_run=options.dry_run,
        resources__retry_rejects=options.retry_rejects,
    )
    clips, latents = Folder.at(options.clips), Folder.at(options.latents)
    descriptions, output = Folder.at(options.descriptions), Folder.at(options.output)
    print(summary({"shard": shard(clips, latents, descriptions, output, settings)}))


if __name__ == "__main__":
    main_of(main)
