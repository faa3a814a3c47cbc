"""clips/ + attributes -> descriptions/: several description-style texts of every clip."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.options import add_dry_run, add_retry_rejects, main_of, parser, run, settings_from
from pipeline.data.describe import DescribeSettings, describe
from pipeline.data.prepare import summary
from pipeline.storage import Folder


def main(argv: Sequence[str] | None = None) -> int:
    """Describe every clip that has latents; no audio is read. Returns the exit code."""
    options_of = parser("describe", __doc__ or "")
    options_of.add_argument("--clips", required=True, metavar="DIR", help="what ingest wrote")
    options_of.add_argument("--latents", required=True, metavar="DIR", help="what encode wrote")
    options_of.add_argument("--output", required=True, metavar="DIR", help="descriptions/")
    add_dry_run(options_of)
    add_retry_rejects(options_of)
    options = options_of.parse_args(argv)

    def body() -> None:
        settings = settings_from(
            DescribeSettings,
            options,
            resources__dry_run=options.dry_run,
            resources__retry_rejects=options.retry_rejects,
        )
        clips, latents = Folder.at(options.clips), Folder.at(options.latents)
        print(summary({"describe": describe(clips, latents, Folder.at(options.output), settings)}))

    return run(body, options)


if __name__ == "__main__":
    main_of(main)
