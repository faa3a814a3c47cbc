"""clips/ -> latents/: codec posteriors, speaker embeddings, measured attributes."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.options import add_dry_run, add_retry_rejects, main_of, parser, run, settings_from
from pipeline.data.encode import EncodeSettings, encode
from pipeline.data.prepare import summary
from pipeline.storage import Folder


def main(argv: Sequence[str] | None = None) -> int:
    """Encode every clip that is not encoded yet; returns the exit code."""
    options_of = parser("encode", __doc__ or "")
    options_of.add_argument("--clips", required=True, metavar="DIR", help="what ingest wrote")
    options_of.add_argument("--codec", required=True, metavar="DIR", help="folder of the codec")
    options_of.add_argument("--output", required=True, metavar="DIR", help="latents/ directory")
    add_dry_run(options_of)
    add_retry_rejects(options_of)
    options = options_of.parse_args(argv)

    def body() -> None:
        settings = settings_from(
            EncodeSettings,
            options,
            resources__dry_run=options.dry_run,
            resources__retry_rejects=options.retry_rejects,
        )
        card = encode(Folder.at(options.clips), Folder.at(options.output), settings, options.codec)
        print(summary({"encode": card}))

    return run(body, options)


if __name__ == "__main__":
    main_of(main)
