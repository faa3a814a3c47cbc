"""Run every stage at a small size: audio first, then corpus, training, bundle and report.

It first makes speech, rain and music with the bundle of the package, then trains that bundle on a
starter corpus, and measures it before and after. With --from-scratch, or in a package without
a bundle, codec and model are trained from nothing.

Runs the ordinary commands one after the other and prints each, so that any of them can be run
again by hand. What is already done is skipped: run the same command again after an interruption.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import shlex
import time
from collections.abc import Sequence
from pathlib import Path

from jobs import options
from jobs.demo_plan import Sizes, Step, next_commands, plan, plan_from_scratch, summary_lines
from model.bundle import DEFAULT_BUNDLE
from model.bundle.shipped import has_bundle

_MINUTES = 6.0
_SCRATCH_MINUTES = 12.0


def build_parser() -> argparse.ArgumentParser:
    """Parser of the command line."""
    built = options.parser("demo", __doc__ or "", has_settings=False)
    built.add_argument(
        "--out", default="runs/demo", metavar="DIR", help="folder of the demo; default: runs/demo"
    )
    scratch = "train codec and model from nothing, without the bundle of the package"
    built.add_argument("--from-scratch", action="store_true", help=scratch)
    minutes = f"minutes of starter corpus; default: {_MINUTES:g}, from scratch {_SCRATCH_MINUTES:g}"
    built.add_argument("--minutes", type=float, help=minutes)
    built.add_argument("--seed", type=int, default=0, help="seed of corpus and samples; default: 0")
    built.add_argument(
        "--codec-steps", type=int, metavar="N", help="codec training steps; default: the recipe's"
    )
    built.add_argument(
        "--train-steps", type=int, metavar="N", help="model training steps; default: the recipe's"
    )
    return built


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `audiocalm demo`; returns the exit code."""
    parsed = build_parser().parse_args(argv)
    return options.run(lambda: _demo(parsed), parsed)


def _demo(parsed: argparse.Namespace) -> None:
    from pipeline.cluster import ray_cluster
    from pipeline.evaluation.summary import write_summary

    out = Path(parsed.out).resolve()
    is_shipped = not parsed.from_scratch and has_bundle(DEFAULT_BUNDLE)
    if not is_shipped and not parsed.from_scratch:
        print(
            f"this package comes without {DEFAULT_BUNDLE}: codec and model are trained from scratch"
        )
    minutes = parsed.minutes or (_MINUTES if is_shipped else _SCRATCH_MINUTES)
    sizes = Sizes(minutes, parsed.seed, parsed.codec_steps, parsed.train_steps)
    steps = plan(out, sizes, DEFAULT_BUNDLE) if is_shipped else plan_from_scratch(out, sizes)
    seconds: dict[str, float] = {}
    with contextlib.ExitStack() as stack:
        has_ray = False
        for number, step in enumerate(steps, 1):
            if step.uses_ray and not has_ray:
                stack.enter_context(ray_cluster())
                has_ray = True
            print(f"\n[{number}/{len(steps)}] audiocalm {shlex.join(step.words)}", flush=True)
            started = time.monotonic()
            _run(step)
            seconds[step.name] = round(time.monotonic() - started, 1)
    named = {step.name.removeprefix("generate "): step for step in steps}
    samples = {name: step.sample for name, step in named.items() if step.sample}
    spoken = {name: step.spoken for name, step in named.items() if step.spoken}
    summary = write_summary(out, seconds, samples, spoken)
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
    """Whether a signal ended a training before its last step."""
    if not words[0].startswith("train"):
        return False
    path = Path(words[words.index("--output") + 1]) / "summary.json"
    return path.is_file() and json.loads(path.read_bytes())["state"] == "stopped"


if __name__ == "__main__":
    options.main_of(main)
