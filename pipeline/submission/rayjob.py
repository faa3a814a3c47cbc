"""A submitted command as a KubeRay RayJob, for `kubectl create -f -`; one template for all jobs."""

from __future__ import annotations

from typing import Any

import yaml

IMAGE_CODE = "/home/ray/audiocalm"
"""Folder of the code in the image (`cluster/Containerfile`)."""


def rayjob(
    name: str, entrypoint: str, cluster: str, stop_s: int, driver_cpus: float, **variables: str
) -> str:
    """Manifest of a RayJob that runs on an existing cluster, as YAML.

    It may be created again after a failure: jobs go on where they stopped. KubeRay itself must not
    retry it, because it would delete the cluster of the job first.

    Args:
        name: Start of the name; Kubernetes adds characters of its own.
        entrypoint: Shell command.
        cluster: Name of the RayCluster.
        stop_s: Time between SIGTERM and SIGKILL when the job is stopped, seconds.
        driver_cpus: Logical CPUs of the driver.
        variables: Environment of the job.
    """
    environment = {**variables, "RAY_JOB_STOP_WAIT_TIME_S": str(stop_s)}
    spec: dict[str, Any] = {
        "clusterSelector": {"ray.io/cluster": cluster},
        "submissionMode": "HTTPMode",
        "entrypoint": entrypoint,
        "runtimeEnvYAML": yaml.safe_dump({"env_vars": environment}, sort_keys=False),
    }
    if driver_cpus:
        spec["entrypointNumCpus"] = driver_cpus
    manifest = {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"generateName": f"{name.lower().replace('_', '-').replace('.', '-')}-"},
        "spec": spec,
    }
    return yaml.safe_dump(manifest, sort_keys=False, width=100)
