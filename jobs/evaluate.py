"""Measure a bundle on held-out clips of a prepared directory, and write a report.

It reads DATA/clips and DATA/descriptions, which `prepare` writes; clips of the training split are
used only with --set fill_from_training=true. It writes results.json, report.md, samples with
spectrograms, and report.html, which opens from disk. Every figure is compared with those of the
recordings and of the codec's reconstruction, and has a confidence interval if it is a mean. Work is
shared by worker processes (--set resources.workers=N). An interrupted evaluation continues where it
stopped when the same command runs again. With --codec in place of --bundle, it measures a codec
alone on DATA/clips and writes results.json.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from jobs import options

logger = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    """Parser of the command line."""
    built = options.parser("evaluate", __doc__ or "")
    measured = built.add_mutually_exclusive_group()
    shipped = "bundle to measure; default: audiocalm-tiny, which comes with the package"
    measured.add_argument("--bundle", metavar="DIR", help=shipped)
    measured.add_argument("--codec", metavar="DIR", help="codec to measure alone")
    built.add_argument(
        "--data", required=True, metavar="DIR", help="directory that `prepare` wrote"
    )
    built.add_argument("--output", required=True, metavar="DIR", help="directory to write")
    built.add_argument(
        "--asr", metavar="DIR", help="Whisper model (CTranslate2 form) for word error rates"
    )
    other = "output of another evaluation on the same clips, for paired differences"
    built.add_argument("--against", metavar="DIR", help=other)
    return built


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `audiocalm evaluate`; returns the exit code."""
    built = build_parser()
    parsed = built.parse_args(argv)
    for name in ("asr", "against"):
        if parsed.codec is not None and getattr(parsed, name) is not None:
            built.error(f"--{name} works only with --bundle")
    body = _evaluate if parsed.codec is None else _evaluate_codec
    return options.run(lambda: body(parsed), parsed)


def _evaluate(parsed: argparse.Namespace) -> None:
    from model.bundle import DEFAULT_BUNDLE
    from pipeline.evaluation.evaluate import evaluate
    from pipeline.evaluation.results import log_evaluation, write_evaluation
    from pipeline.evaluation.settings import EvaluateSettings
    from pipeline.settings import save_settings
    from pipeline.storage import Folder

    settings = options.settings_from(
        EvaluateSettings, parsed, asr=parsed.asr, against=parsed.against
    )
    output = Folder.at(parsed.output)
    evaluation = evaluate(
        parsed.bundle or DEFAULT_BUNDLE,
        Folder.at(parsed.data),
        output,
        settings,
        lambda done, total: logger.info("evaluate: %d/%d clips", done, total),
    )
    output.write_bytes("settings.yaml", save_settings(settings).encode())
    write_evaluation(evaluation, Path(parsed.output))
    if settings.tracking is not None:
        log_evaluation(evaluation.results, Path(parsed.output), settings.tracking)
    print(f"wrote {parsed.output}/results.json, report.md and report.html")


def _evaluate_codec(parsed: argparse.Namespace) -> None:
    from model.codec.registry import codec_digest, load_codec
    from pipeline.evaluation.codec import EvaluateCodecSettings, evaluate_codec
    from pipeline.storage import Folder

    settings = options.settings_from(EvaluateCodecSettings, parsed)
    results = evaluate_codec(
        load_codec(parsed.codec),
        Folder.at(parsed.data).child("clips"),
        settings,
        lambda done, total: logger.info("evaluate: %d/%d clips", done, total),
    )
    output = Folder.at(parsed.output)
    output.write_json("results.json", {"codec_digest": codec_digest(parsed.codec), **results})
    print(f"wrote {parsed.output}/results.json")


if __name__ == "__main__":
    options.main_of(main)
