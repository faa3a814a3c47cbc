"""latents/ + descriptions/ -> train-shards/: an index over the latents, and the texts."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.options import add_dry_run, add_retry_rejects, main_of, parser, run, settings_from
from pipeline.data.prepare import summary
from pipeline.data.shard import ShardSettings, shard
from pipeline.storage import Folder


def main(argv: Sequence[str] | None = None) -> int:
    """Join latents and descriptions into shards; returns the exit code."""
    options_of = parser("shard", __doc__ or "")
    for name in ("clips", "latents", "descriptions"):
        options_of.add_argument(f"--{name}", required=True, metavar="DIR", help=f"{name}/")
    options_of.add_argument("--output", required=True, metavar="DIR", help="train-shards/")
    add_dry_run(options_of)
    add_retry_rejects(options_of)
    options = options_of.parse_args(argv)

    def body() -> None:
        settings = settings_from(
            ShardSettings,
            options,
            resources__dry_run=options.dry_run,
            resources__retry_rejects=options.retry_rejects,
        )
        clips, latents = Folder.at(options.clips), Folder.at(options.latents)
        descriptions, output = Folder.at(options.descriptions), Folder.at(options.output)
        print(summary({"shard": shard(clips, latents, descriptions, output, settings)}))

    return run(body, options)


if __name__ == "__main__":
    main_of(main)
