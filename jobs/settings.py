"""Print the settings of a command with their meaning, range and default.

They are what `--config FILE` and `--set a.b=c` of that command take.
"""

from __future__ import annotations

import importlib
import textwrap
from argparse import ArgumentParser
from collections.abc import Sequence

from jobs.options import main_of, parser, run
from pipeline.errors import SettingsError
from pipeline.settings import Settings

SCHEMAS: dict[str, str] = {
    "starter-corpus": "pipeline.data.starter.settings:StarterSettings",
    "ingest": "pipeline.data.ingest:IngestSettings",
    "encode": "pipeline.data.encode:EncodeSettings",
    "describe": "pipeline.data.describe:DescribeSettings",
    "shard": "pipeline.data.shard:ShardSettings",
    "prepare": "pipeline.data.prepare:PrepareSettings",
    "data-report": "pipeline.data.report.write:DataReportSettings",
    "train-codec": "pipeline.training.codec.settings:TrainCodecSettings",
    "plan": "pipeline.training.settings:TrainSettings",
    "train": "pipeline.training.settings:TrainSettings",
    "distill": "pipeline.training.settings:TrainSettings",
    "study": "pipeline.training.study:StudySettings",
    "serve": "pipeline.serving.settings:ServeSettings",
    "evaluate": "pipeline.evaluation.settings:EvaluateSettings",
}
"""Settings class of every command that takes a recipe."""


def schema_of(command: str) -> type[Settings]:
    """Settings class of a command."""
    module, _, name = SCHEMAS[command].partition(":")
    schema: type[Settings] = getattr(importlib.import_module(module), name)
    return schema


def build_parser() -> ArgumentParser:
    """Parser of the command line."""
    built = parser("settings", __doc__ or "", has_settings=False)
    built.add_argument(
        "command", choices=tuple(SCHEMAS), metavar="COMMAND", help=", ".join(SCHEMAS)
    )
    built.add_argument(
        "key", nargs="?", default="", metavar="KEY", help="beginning of the keys to print"
    )
    return built


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `audiocalm settings`; returns the exit code."""
    options = build_parser().parse_args(argv)
    return run(lambda: print_settings(options.command, options.key), options)


def print_settings(command: str, start: str) -> None:
    """Print the settings whose keys begin with `start`.

    Raises:
        SettingsError: If there is none.
    """
    from pipeline.settings_reference import settings_of

    items = [item for item in settings_of(schema_of(command)) if item.key.startswith(start)]
    if not items:
        raise SettingsError(
            f"{command} has no setting that begins with {start!r}; see `audiocalm settings "
            f"{command}`"
        )
    for item in items:
        about = "" if item.group is not None else f"  {item.kind}; {item.default or 'empty'}"
        print(item.key + about)
        print(textwrap.indent(textwrap.fill(item.meaning, 92), "    "))


if __name__ == "__main__":
    main_of(main)
