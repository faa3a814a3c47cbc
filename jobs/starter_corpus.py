"""Make a licence-free corpus of speech, sound and music.

Everything is synthesised, so the labels are true and the licence is CC0-1.0. The same settings give
the same bytes. The directory appears when it is complete.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from jobs.options import main_of, parser, run, settings_from
from pipeline.data.starter.settings import MODALITIES, StarterSettings
from pipeline.data.starter.write import write_corpus


def build_parser() -> ArgumentParser:
    """Parser of the command line."""
    built = parser("starter-corpus", __doc__ or "")
    built.add_argument("--out", required=True, metavar="DIR", type=Path, help="directory to write")
    built.add_argument("--minutes", type=float, help="minutes of audio, 0.5 to 6000; default: 12")
    built.add_argument("--seed", type=int, help="seed of every random choice; default: 0")
    built.add_argument("--processes", type=int, default=2, help="worker processes; default: 2")
    return built


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `audiocalm starter-corpus`; returns the exit code."""
    options = build_parser().parse_args(argv)
    return run(lambda: make_corpus(options), options)


def make_corpus(options: Namespace) -> None:
    """Write the corpus and print what it holds."""
    settings = settings_from(StarterSettings, options, minutes=options.minutes, seed=options.seed)
    corpus = write_corpus(options.out, settings, options.processes)
    state = "exists already" if corpus.was_there else "made"
    counts = ", ".join(
        f"{corpus.card['clips'][name]} {name} clips ({corpus.card['minutes'][name]:.1f} min)"
        for name in MODALITIES
    )
    print(f"{corpus.folder} {state}: {counts}")


if __name__ == "__main__":
    main_of(main)
