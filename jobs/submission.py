"""A command as a submitted job: its name, arguments, files, environment and entry point."""

from __future__ import annotations

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

from jobs.cluster_arguments import COMPUTE_IN_DRIVER, check_variables, cluster_arguments
from pipeline.errors import SettingsError
from pipeline.submission.client import COMMAND, NAME, JobServer
from pipeline.submission.package import code_root, stage_package
from pipeline.submission.rayjob import IMAGE_CODE, rayjob

_NAMED_RUNS = ("train-codec", "train", "distill")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,80}")
_STAMPED = re.compile(r".*-\d{8}-\d{6}-[0-9a-f]{4}")


@dataclass(frozen=True)
class Submission:
    """A checked command, ready to be sent.

    Attributes:
        name: Name of the job.
        command: Command of `audiocalm`.
        arguments: Its arguments; files are named by their path in the package.
        files: Files named by arguments, by their path in the package.
        environment: Variables that the job gets.
        secrets: Names of variables that must be set on the cluster.
    """

    name: str
    command: str
    arguments: tuple[str, ...]
    files: Mapping[str, Path]
    environment: Mapping[str, str]
    secrets: tuple[str, ...]

    @classmethod
    def of(
        cls,
        command: str,
        arguments: Sequence[str],
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
        name = name or _stamped(command)
        check_variables(env, secrets)
        checked, files = cluster_arguments(command, arguments)
        if command in _NAMED_RUNS and not any("tracking.run_name=" in one for one in checked):
            checked += ["--set", f"tracking.run_name={name}"]
        environment = {variable: os.environ[variable] for variable in env}
        return cls(name, command, tuple(checked), files, environment, tuple(secrets))

    def entrypoint(self) -> str:
        """Shell command of the job; it fails at once if a secret is not set."""
        checks = [f': "${{{name}:?is not set on the cluster}}"' for name in self.secrets]
        command = shlex.join(["python", "-m", "jobs.cli", self.command, *self.arguments])
        return " && ".join([*checks, f"exec {command}"])

    def send(self, server: JobServer, stop_s: int, driver_cpus: float | None = None) -> str:
        """Submit the job with its code; returns its id.

        Args:
            server: Job server.
            stop_s: Time between SIGTERM and SIGKILL when the job is stopped, seconds.
            driver_cpus: Logical CPUs of the driver; None is the default of the command.
        """
        # Ray warns of every file of weights, and says that it uploads.
        logging.getLogger("ray").setLevel(logging.ERROR)
        with tempfile.TemporaryDirectory(prefix="audiocalm-submit-") as folder:
            stage_package(code_root(), Path(folder), self.files)
            variables = {**self.environment, "RAY_JOB_STOP_WAIT_TIME_S": str(stop_s)}
            return server.submit_job(
                entrypoint=self.entrypoint(),
                submission_id=self.name if _STAMPED.fullmatch(self.name) else _stamped(self.name),
                runtime_env={"working_dir": folder, "env_vars": variables},
                metadata={NAME: self.name, COMMAND: self.command},
                entrypoint_num_cpus=self._driver_cpus(driver_cpus),
            )

    def manifest(self, cluster: str, stop_s: int, driver_cpus: float | None = None) -> str:
        """The job as a KubeRay RayJob (`pipeline.submission.rayjob`), whose code is the image's.

        Args:
            cluster: Name of the RayCluster.
            stop_s: Time between SIGTERM and SIGKILL when the job is stopped, seconds.
            driver_cpus: Logical CPUs of the driver; None is the default of the command.

        Raises:
            SettingsError: If an argument names a file that is not in the image.
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


def _stamped(name: str) -> str:
    """A name with the time and random characters, which no other job has."""
    return f"{name}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{uuid.uuid4().hex[:4]}"
