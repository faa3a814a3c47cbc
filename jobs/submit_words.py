"""A command as a submitted job: its words, files, environment and entry point."""

from __future__ import annotations

import importlib
import logging
import os
import re
import shlex
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from jobs.cli import module_of
from pipeline.errors import SettingsError
from pipeline.submission.client import COMMAND, NAME, JobServer
from pipeline.submission.package import code_root, packed_name, stage_package
from pipeline.submission.rayjob import IMAGE_CODE, rayjob

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
"""Commands that work in their driver, which so needs a CPU of its own."""

_NAMED_RUNS = ("train-codec", "train", "distill")
_OUTPUTS = ("output", "out")
_FOLDER = re.compile(r"\b(DIR|RUN|BUNDLE)\b")
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL", re.IGNORECASE)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,80}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Submission:
    """A checked command, ready to be sent.

    Attributes:
        name: Name of the job.
        command: Command of `audiocalm`.
        words: Its options, as the cluster takes them.
        files: Files named by options, by their path in the package.
        environment: Variables that the job gets.
        secrets: Names of variables that must be set on the cluster.
    """

    name: str
    command: str
    words: tuple[str, ...]
    files: Mapping[str, Path]
    environment: Mapping[str, str]
    secrets: tuple[str, ...]

    @classmethod
    def of(
        cls,
        command: str,
        words: Sequence[str],
        name: str | None = None,
        env: Sequence[str] = (),
        secrets: Sequence[str] = (),
    ) -> Submission:
        """Check a command with its own parser and settings, before anything is sent.

        Raises:
            SettingsError: If a folder is not reachable from a cluster, a setting or a name is
                wrong, or a variable is not set or would publish a secret.
        """
        if name is not None and not _NAME.fullmatch(name):
            raise SettingsError(f"--name {name!r} is not made of letters, digits, '.', '_' and '-'")
        name = name or f"{command}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{uuid.uuid4().hex[:4]}"
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
        files: dict[str, Path] = {}
        ready = _cluster_words(command, list(words), files)
        if command in _NAMED_RUNS and not any("tracking.run_name=" in word for word in ready):
            ready += ["--set", f"tracking.run_name={name}"]
        environment = {variable: os.environ[variable] for variable in env}
        return cls(name, command, tuple(ready), files, environment, tuple(secrets))

    def entrypoint(self) -> str:
        """Shell command of the job; it fails at once if a secret is not set."""
        checks = [f': "${{{name}:?is not set on the cluster}}"' for name in self.secrets]
        command = shlex.join(["python", "-m", "jobs.cli", self.command, *self.words])
        return " && ".join([*checks, f"exec {command}"])

    def send(self, server: JobServer, stop_s: int, driver_cpus: float | None = None) -> str:
        """Submit the job with its code; returns its id.

        Args:
            server: Job server.
            stop_s: Time between SIGTERM and SIGKILL when the job is stopped, seconds.
            driver_cpus: Logical CPUs of the driver; None is the default of the command.
        """
        job_id = self.name
        if not re.search(r"-\d{8}-\d{6}-[0-9a-f]{4}$", job_id):
            job_id += f"-{datetime.now(UTC):%Y%m%d-%H%M%S}-{uuid.uuid4().hex[:4]}"
        # Ray warns of every file of weights, and says that it uploads.
        logging.getLogger("ray").setLevel(logging.ERROR)
        with tempfile.TemporaryDirectory(prefix="audiocalm-submit-") as folder:
            stage_package(code_root(), Path(folder), self.files)
            variables = {**self.environment, "RAY_JOB_STOP_WAIT_TIME_S": str(stop_s)}
            return server.submit_job(
                entrypoint=self.entrypoint(),
                submission_id=job_id,
                runtime_env={"working_dir": folder, "env_vars": variables},
                metadata={NAME: self.name, COMMAND: self.command},
                entrypoint_num_cpus=self._driver_cpus(driver_cpus),
            )

    def manifest(self, cluster: str, stop_s: int, driver_cpus: float | None = None) -> str:
        """The job as a KubeRay RayJob (`pipeline.submission.rayjob`), whose code is the image's.

        Args:
            cluster: Name of the RayCluster.
            stop_s: As for `send`.
            driver_cpus: As for `send`.

        Raises:
            SettingsError: If an option names a file that is not in the image.
        """
        entrypoint, recipes = self.entrypoint(), code_root() / "jobs" / "configs"
        for name, path in self.files.items():
            if path.resolve().parent != recipes:
                raise SettingsError(
                    f"{path} cannot travel with a RayJob, whose code is in the image; give a "
                    "recipe of jobs/configs/ and --set, or submit with --address"
                )
            entrypoint = entrypoint.replace(name, f"{IMAGE_CODE}/jobs/configs/{path.name}")
        cpus = self._driver_cpus(driver_cpus)
        return rayjob(self.name, entrypoint, cluster, stop_s, cpus, **self.environment)

    def _driver_cpus(self, given: float | None) -> float:
        default = 1.0 if self.command in COMPUTE_IN_DRIVER else 0.0
        return default if given is None else given


def _cluster_words(command: str, words: list[str], files: dict[str, Path]) -> list[str]:
    """Options of a command with its files renamed to those of the package; fills `files`."""
    built = importlib.import_module(module_of(command)).build_parser()
    parsed = built.parse_args(words)
    for action in built._actions:  # argparse lists them nowhere else
        value = getattr(parsed, action.dest, None)
        if value is None or value == action.default or not isinstance(action.metavar, str):
            continue
        values = [str(one) for one in (value if isinstance(value, list) else [value])]
        is_output = action.dest in _OUTPUTS
        if action.metavar == "FILE" and not is_output:
            for one in values:
                name = packed_name(Path(one))
                files[name] = Path(one)
                words = [_renamed(word, one, name) for word in words]
        elif is_output or _FOLDER.search(action.metavar):
            for one in values:
                _check_reachable(action.option_strings[0] if action.option_strings else "", one)
    _check_settings(command, parsed)
    return words


def _renamed(word: str, old: str, new: str) -> str:
    if word == old:
        return new
    return word.replace(f"={old}", f"={new}") if word.endswith(f"={old}") else word


def _check_reachable(option: str, value: str) -> None:
    """Refuse a path that means another folder on the cluster, or none."""
    if "://" in value or value.startswith("/"):
        return
    if option in ("--output", "--out") or "/" in value or Path(value).exists():
        raise SettingsError(
            f"{option} {value} is a folder of this machine's working directory; give an absolute "
            "path or a URI, such as s3://, that every node of the cluster reaches"
        )


def _check_settings(command: str, parsed: object) -> None:
    from jobs.settings import SCHEMAS, schema_of
    from pipeline.settings import load_settings

    if command in SCHEMAS:
        overrides = getattr(parsed, "overrides", [])
        load_settings(schema_of(command), getattr(parsed, "config", None), overrides)
