"""What every entry point shares: its options, its log, its exit codes."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

import threadpoolctl

from pipeline.errors import PipelineError, PlannedOnlyError
from pipeline.settings import Settings, load_settings

SettingsT = TypeVar("SettingsT", bound=Settings)

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

EXIT_FAILED = 1
EXIT_USAGE = 2


def parser(name: str, description: str, *, has_settings: bool = True) -> argparse.ArgumentParser:
    """Parser of one job, with the options all of them take.

    Args:
        name: The command, as after `audiocalm`.
        description: Shown by `--help`; the first line also stands in the list of commands.
        has_settings: Whether the job takes `--config` and `--set`.
    """
    built = argparse.ArgumentParser(
        prog=f"audiocalm {name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if has_settings:
        built.add_argument("--config", metavar="FILE", help="recipe in YAML; see jobs/configs/")
        built.add_argument(
            "--set",
            metavar="a.b=c",
            action="append",
            default=[],
            dest="overrides",
            help="one setting of the recipe, by dotted key; may be repeated, later ones win",
        )
    built.add_argument("--verbose", action="store_true", help="log debug lines too")
    return built


def settings_from(
    schema: type[SettingsT], options: argparse.Namespace, **flags: object
) -> SettingsT:
    """Settings of a job: defaults, recipe, `--set`, then the job's own flags that were given.

    Args:
        schema: Settings class.
        options: Parsed options.
        flags: Values of dedicated options by dotted key with `__` for the dot; None is not given.
    """
    given = [
        f"{key.replace('__', '.')}={_as_yaml(value)}"
        for key, value in flags.items()
        if value is not None
    ]
    return load_settings(schema, options.config, [*options.overrides, *given])


def add_dry_run(built: argparse.ArgumentParser) -> None:
    """The option of data stages that do nothing but say what they would do."""
    built.add_argument(
        "--dry-run",
        action="store_const",
        const=True,
        help="say what would be done and how long it would take; write nothing",
    )


def add_retry_rejects(built: argparse.ArgumentParser) -> None:
    """The option of data stages that process rejected clips again, for instance after an outage."""
    built.add_argument(
        "--retry-rejects",
        metavar="REASON",
        action="append",
        help="process units again that hold rejects of this reason, such as unreadable; may be "
        "repeated",
    )


def run(body: Callable[[], None], options: argparse.Namespace) -> int:
    """Run a job's body: configure the log, print known errors in one line, give an exit code."""
    configure_log(verbose=options.verbose)
    one_thread()
    try:
        body()
    except PlannedOnlyError as planned:
        print(planned)
    except KeyboardInterrupt:
        logging.getLogger(__name__).warning("interrupted; run the same command again to go on")
        return 130
    except (PipelineError, ValueError, OSError) as error:
        if options.verbose:
            raise
        print(f"error: {error}", file=sys.stderr)
        return EXIT_FAILED
    return 0


def configure_log(*, verbose: bool = False) -> None:
    """Plain lines on stderr; the only place that configures logging."""
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        datefmt="%H:%M:%S",
        stream=sys.stderr,
        force=True,
    )
    if not verbose:
        for noisy in ("mlflow", "alembic", "urllib3", "matplotlib", "numexpr", "fsspec"):
            logging.getLogger(noisy).setLevel(logging.WARNING)


def one_thread() -> None:
    """Let arithmetic in this process take one core, since jobs run a process a core.

    An environment that says how many it may take is left alone. Libraries that are loaded already
    no longer read it, and are told directly.
    """
    if any(name in os.environ for name in _THREADS):
        return
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    threadpoolctl.threadpool_limits(1, user_api="blas")


def main_of(job: Callable[[Sequence[str] | None], int]) -> None:
    """End the process with a job's exit code; for `python -m jobs.<name>`."""
    sys.exit(job(None))


def _as_yaml(value: object) -> str:
    if isinstance(value, list | tuple):
        return "[" + ",".join(_as_yaml(item) for item in value) + "]"
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)
