"""Compare arms of one training, such as joint and single-modality models, with several seeds each.

Every arm gets the floating-point operations of the reference arm, and is measured by the flow loss
on single held-out clips of the shards. The report is written after every run. The same command
continues an interrupted study, run by run; --runs N stops after so many.
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
    built = options.parser("study", __doc__ or "")
    built.add_argument(
        "--shards", required=True, metavar="DIR", help="train-shards that `prepare` wrote"
    )
    built.add_argument("--output", required=True, metavar="DIR", help="directory of the study")
    built.add_argument(
        "--runs", type=int, metavar="N", help="measured runs to stop at; default: all"
    )
    return built


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `audiocalm study`; returns the exit code."""
    parsed = build_parser().parse_args(argv)
    return options.run(lambda: _study(parsed), parsed)


def _study(parsed: argparse.Namespace) -> None:
    from pipeline.evaluation.study import study_results, write_study
    from pipeline.storage import Folder
    from pipeline.training.study import StudySettings, clip_facts, run_study

    settings = options.settings_from(StudySettings, parsed)
    shards, output = Folder.at(parsed.shards), Folder.at(parsed.output)
    clips = clip_facts(shards)
    total = len(settings.arms) * len(settings.seeds)
    measured = []
    for run in run_study(settings, shards, output):
        measured.append(run)
        results = study_results(measured, clips, settings.reference)
        write_study(results, Path(parsed.output))
        logger.info("study: %d of %d runs measured", len(measured), total)
        if len(measured) == parsed.runs:
            break
    print(f"wrote {parsed.output}/results.json, study.md and study.html")


if __name__ == "__main__":
    options.main_of(main)
