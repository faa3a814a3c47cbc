"""`audiocalm starter-corpus`: make a licence-free corpus of speech, sound and music."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jobs.options import main_of, parser, run, settings_from
from pipeline.data.starter.settings import MODALITIES, StarterSettings
from pipeline.data.starter.write import write_corpus

DESCRIPTION = """Make a licence-free corpus of speech, sound and music.

Everything is synthesised, so the labels are true and nobody's rights are touched (CC0-1.0). The
same settings give the same bytes. The directory appears when it is complete."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns its exit code."""
    options = parser("starter-corpus", DESCRIPTION)
    options.add_argument("--out", required=True, metavar="DIR", type=Path, help="directory to make")
    options.add_argument("--minutes", type=float, help="minutes of audio, 0.5 to 600 (default 12)")
    options.add_argument("--seed", type=int, help="seed of every choice (default 0)")
    options.add_argument("--processes", type=int, default=2, help="workers (default 2)")
    given = options.parse_args(argv)

    def body() -> None:
        settings = settings_from(StarterSettings, given, minutes=given.minutes, seed=given.seed)
        corpus = write_corpus(given.out, settings, given.processes)
        state = "is there already" if corpus.was_there else "made"
        counts = ", ".join(
            f"{corpus.card['clips'][name]} {name} clips ({corpus.card['minutes'][name]:.1f} min)"
            for name in MODALITIES
        )
        print(f"{corpus.folder} {state}: {counts}")

    return run(body, given)


if __name__ == "__main__":
    main_of(main)
