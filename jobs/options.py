"""Options, logging and exit codes that every entry point shares."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from pipeline.errors import PipelineError, PlannedOnlyError
from pipeline.threads import use_one_thread

if TYPE_CHECKING:
    from pipeline.settings import Settings

SettingsT = TypeVar("SettingsT", bound="Settings")

EXIT_FAILED = 1
EXIT_USAGE = 2


def parser(name: str, description: str, *, has_settings: bool = True) -> argparse.ArgumentParser:
    """Parser of one job, with the options that all jobs take.

    Args:
        name: The command, as after `audiocalm`.
        description: Text that `--help` shows.
        has_settings: Whether the job takes `--config` and `--set`.
    """
    about = f"\nAll settings: audiocalm settings {name}" if has_settings else ""
    built = argparse.ArgumentParser(
        prog=f"audiocalm {name}",
        description=description,
        epilog=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if has_settings:
        built.add_argument(
            "--config", metavar="FILE", help="recipe in YAML, such as those in jobs/configs/"
        )
        built.add_argument(
            "--set",
            metavar="a.b=c",
            action="append",
            default=[],
            dest="overrides",
            help="set one value by its dotted key; may be repeated, the last one wins",
        )
    built.add_argument(
        "--verbose", action="store_true", help="log debug messages, and show tracebacks of errors"
    )
    return built


def settings_from(
    schema: type[SettingsT], options: argparse.Namespace, **flags: object
) -> SettingsT:
    """Settings of a job: defaults, then the recipe, `--set`, and the job's own options.

    Args:
        schema: Settings class.
        options: Parsed options.
        flags: Values of the job's own options, by dotted key with `__` for the dot; None means
            that the option was not given.

    Raises:
        SettingsError: If a key is unknown or a value is not allowed.
    """
    from pipeline.settings import load_settings  # imports pydantic; `generate` has no settings

    given = [
        f"{key.replace('__', '.')}={_as_yaml(value)}"
        for key, value in flags.items()
        if value is not None
    ]
    return load_settings(schema, options.config, [*options.overrides, *given])


def add_dry_run(built: argparse.ArgumentParser) -> None:
    """Add the option that makes a data stage say what it would do, and do nothing."""
    built.add_argument(
        "--dry-run",
        action="store_const",
        const=True,
        help="say what would be done and how long it would take; write nothing",
    )


def add_retry_rejects(built: argparse.ArgumentParser) -> None:
    """Add the option that processes rejected clips again, for instance after an outage."""
    built.add_argument(
        "--retry-rejects",
        metavar="REASON",
        action="append",
        help="process units again that have clips rejected for this reason, such as unreadable; "
        "may be repeated",
    )


def add_address(built: argparse.ArgumentParser) -> None:
    """Add the option that names a cluster."""
    built.add_argument(
        "--address",
        metavar="URL",
        help="dashboard of the cluster, such as http://HEAD:8265; default: the variable "
        "RAY_API_SERVER_ADDRESS",
    )


def positive(text: str) -> int:
    """Type of an option that is a number above 0.

    Raises:
        argparse.ArgumentTypeError: If it is none.
    """
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"is {number}; give at least 1")
    return number


def run(body: Callable[[], int | None], options: argparse.Namespace) -> int:
    """Run a job with logging configured, and return its exit code: what `body` returns, or 0.

    Known errors are printed in one line, or with a traceback under `--verbose`.
    """
    configure_log(verbose=options.verbose)
    use_one_thread()
    try:
        return body() or 0
    except PlannedOnlyError as planned:
        print(planned)
    except KeyboardInterrupt:
        logging.getLogger(__name__).warning("interrupted; run the same command again to continue")
        return 130
    except (PipelineError, ValueError, OSError) as error:
        if options.verbose:
            raise
        print(f"error: {error}", file=sys.stderr)
        return EXIT_FAILED
    return 0


def configure_log(*, verbose: bool = False) -> None:
    """Log plain lines to stderr. No other module configures logging."""
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
