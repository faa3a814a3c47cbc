"""The whole road, small: starter corpus, data stages, codec, model, bundle, samples, report.

Runs the ordinary commands one after the other and prints each, so that any of them can be run
again by hand. What is already done is skipped: run the same command again after an interruption.
"""

from __future__ import annotations

import argparse
import importlib
import json
import shlex
import time
from collections.abc import Sequence
from pathlib import Path

from jobs import options
from jobs.demo_plan import Step, next_commands, plan, summary_lines


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    built = options.parser("demo", __doc__ or "", has_settings=False)
    built.add_argument("--out", default="runs/demo", metavar="DIR", help="default: runs/demo")
    built.add_argument("--minutes", type=float, default=12.0, help="minutes of starter corpus")
    built.add_argument("--seed", type=int, default=0, help="seed of corpus and samples")
    built.add_argument("--codec-steps", type=int, metavar="N", help="default: of the recipe")
    built.add_argument("--train-steps", type=int, metavar="N", help="default: of the recipe")
    parsed = built.parse_args(argv)
    return options.run(lambda: _demo(parsed), parsed)


def _demo(parsed: argparse.Namespace) -> None:
    from pipeline.cluster import ray_cluster
    from pipeline.evaluation.summary import write_summary

    out = Path(parsed.out).resolve()
    steps = plan(out, parsed.minutes, parsed.seed, parsed.codec_steps, parsed.train_steps)
    seconds: dict[str, float] = {}
    with ray_cluster():
        for number, step in enumerate(steps, 1):
            print(f"\n[{number}/{len(steps)}] audiocalm {shlex.join(step.words)}", flush=True)
            started = time.monotonic()
            _run(step)
            seconds[step.name] = round(time.monotonic() - started, 1)
    samples = {step.name.removeprefix("generate "): step.sample for step in steps if step.sample}
    summary = write_summary(out, seconds, samples)
    lines = [*summary_lines(summary), "", f"listen: {out / 'report.html'}", "", "next:"]
    print("", *lines, *(f"  {command}" for command in next_commands(out)), sep="\n")


def _run(step: Step) -> None:
    job = importlib.import_module(f"jobs.{step.words[0].replace('-', '_')}")
    code = job.main(step.words[1:])
    if code:
        raise ValueError(f"`audiocalm {step.words[0]}` ended with code {code}; see the lines above")
    if _was_stopped(step.words):
        raise KeyboardInterrupt


def _was_stopped(words: Sequence[str]) -> bool:
    """Whether a training ended before its last step, since a signal asked for it."""
    if not words[0].startswith("train"):
        return False
    path = Path(words[words.index("--output") + 1]) / "summary.json"
    return path.is_file() and json.loads(path.read_bytes())["state"] == "stopped"


if __name__ == "__main__":
    options.main_of(main)
