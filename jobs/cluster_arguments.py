"""Arguments of a command that runs on a cluster: checked here, with the files that they name."""

from __future__ import annotations

import importlib
import os
import re
from argparse import Action, ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path

from jobs.cli import module_of
from pipeline.errors import SettingsError
from pipeline.submission.package import packed_name

SUBMITTABLE = (
    "starter-corpus",
    "prepare",
    "ingest",
    "encode",
    "describe",
    "shard",
    "data-report",
    "train-codec",
    "train",
    "distill",
    "export",
    "evaluate",
)
"""Commands that run as a job. The endpoint is deployed by `serve deploy` instead."""
COMPUTE_IN_DRIVER = ("starter-corpus", "data-report", "export", "evaluate")
"""Commands that compute in their driver, which therefore reserves a CPU."""

_OUTPUTS = ("output", "out")
_FOLDER = re.compile(r"\b(DIR|RUN|BUNDLE)\b")
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL", re.IGNORECASE)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def cluster_arguments(command: str, arguments: Sequence[str]) -> tuple[list[str], dict[str, Path]]:
    """Check arguments with the command's own parser and settings.

    Returns:
        The arguments, with the files among them renamed to their path in the package; and these
        files by that path.

    Raises:
        SettingsError: If a folder is not reachable from a cluster, or a setting or file is wrong.
        SystemExit: If the command does not have such an option.
    """
    built: ArgumentParser = importlib.import_module(module_of(command)).build_parser()
    parsed = built.parse_args(arguments)
    renamed, files = list(arguments), {}
    for action, value in _given(built, parsed):
        is_output = action.dest in _OUTPUTS
        if action.metavar == "FILE" and not is_output:
            name = packed_name(Path(value))
            files[name] = Path(value)
            renamed = [_renamed(one, value, name) for one in renamed]
        elif is_output or _FOLDER.search(str(action.metavar)):
            _check_reachable(action.option_strings[0] if action.option_strings else "", value)
    _check_settings(command, parsed)
    return renamed, files


def check_variables(env: Sequence[str], secrets: Sequence[str]) -> None:
    """Check names of environment variables.

    Args:
        env: Variables that the job gets with their values here.
        secrets: Variables that must be set on the cluster.

    Raises:
        SettingsError: If a name is not valid, or a variable of `env` is not set or looks like a
            secret.
    """
    for variable in (*env, *secrets):
        if not _VARIABLE.fullmatch(variable):
            raise SettingsError(
                f"{variable!r} is no name of a variable; --env and --secret take names only, "
                "so that no value lies in a shell history"
            )
    for variable in env:
        if _SECRET.search(variable):
            raise SettingsError(
                f"--env {variable} looks like a secret, and the values of --env are shown to "
                "everyone who sees the cluster's dashboard; set it on the nodes and give "
                f"--secret {variable}"
            )
        if variable not in os.environ:
            raise SettingsError(f"--env {variable}: the variable is not set here; set it")


def _given(built: ArgumentParser, parsed: Namespace) -> Iterator[tuple[Action, str]]:
    """Every value of the command line that belongs to an option with a metavar."""
    for action in built._actions:  # argparse lists them nowhere else
        value = getattr(parsed, action.dest, None)
        if value is None or value == action.default or not isinstance(action.metavar, str):
            continue
        for one in value if isinstance(value, list) else [value]:
            yield action, str(one)


def _renamed(argument: str, old: str, new: str) -> str:
    if argument == old:
        return new
    return argument.replace(f"={old}", f"={new}") if argument.endswith(f"={old}") else argument


def _check_reachable(option: str, value: str) -> None:
    """Refuse a path that means another folder on the cluster, or none."""
    if "://" in value or value.startswith("/"):
        return
    if option in ("--output", "--out") or "/" in value or Path(value).exists():
        raise SettingsError(
            f"{option} {value} is a folder of this machine's working directory; give an absolute "
            "path or a URI, such as s3://, that every node of the cluster reaches"
        )


def _check_settings(command: str, parsed: Namespace) -> None:
    from jobs.settings import SCHEMAS, schema_of
    from pipeline.settings import load_settings

    if command in SCHEMAS:
        overrides = getattr(parsed, "overrides", [])
        load_settings(schema_of(command), getattr(parsed, "config", None), overrides)
