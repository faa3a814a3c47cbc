"""Print the completion of commands, options and choices for a shell.

Write it where the shell looks for completions, for instance with bash:
audiocalm completion bash > ~/.local/share/bash-completion/completions/audiocalm
"""

from __future__ import annotations

import importlib
from argparse import ArgumentParser
from collections.abc import Sequence

from jobs.cli import COMMANDS, module_of
from jobs.options import main_of, parser, run
from pipeline.errors import SettingsError

SHELLS = ("bash", "zsh", "tcsh")


def build_parser() -> ArgumentParser:
    """Parser of the command line."""
    built = parser("completion", __doc__ or "", has_settings=False)
    built.add_argument("shell", choices=SHELLS, help="shell to complete in")
    return built


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `audiocalm completion`; returns the exit code."""
    options = build_parser().parse_args(argv)
    return run(lambda: print_completion(options.shell), options)


def print_completion(shell: str) -> None:
    """Print the script of a shell.

    Raises:
        SettingsError: If shtab is not installed.
    """
    try:
        import shtab
    except ImportError as error:
        raise SettingsError(
            "completion needs the package shtab; install the extra `completion`"
        ) from error
    print(shtab.complete(whole_parser(), shell=shell))


def whole_parser() -> ArgumentParser:
    """One parser with every command as a subcommand."""
    whole = ArgumentParser(prog="audiocalm")
    commands = whole.add_subparsers(dest="command")
    for command, summary in COMMANDS.items():
        job = importlib.import_module(module_of(command))
        commands.add_parser(command, help=summary, parents=[job.build_parser()], add_help=False)
    return whole


if __name__ == "__main__":
    main_of(main)
