"""Check every kind of node of the connected cluster: versions, storage, tracking, GPU."""

from __future__ import annotations

import importlib.metadata
import platform
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.machine_check import Finding
from pipeline.storage import Folder

_PACKAGES = ("ray", "torch", "deepspeed", "pyarrow", "mlflow")
_ANSWER_S = 300.0
_REQUEST_S = 10.0


def check_nodes(storage: str | None, tracking: str | None) -> list[Finding]:
    """Findings of one node of every kind, each named by its kind; Ray must be connected.

    Nodes are of one kind if they are in the same node group and offer the same CPUs and GPUs.

    Args:
        storage: Folder that all nodes must read and write, by URI; None checks none.
        tracking: Address of the MLflow server that all nodes must reach; None checks none.
    """
    versions = installed_versions()
    probe = None
    if storage is not None:
        probe = f".audiocalm-probe-{uuid.uuid4().hex}"
        Folder.at(storage).write_bytes(probe, probe.encode())
    try:
        asked = {}
        for kind, node in kinds_of_nodes(ray.nodes()).items():
            has_gpu = node["Resources"].get("GPU", 0) > 0
            strategy = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            task = ray.remote(check_node).options(
                num_cpus=0,
                num_gpus=1 if has_gpu else 0,
                max_retries=0,
                scheduling_strategy=strategy,
            )
            asked[kind] = task.remote(versions, storage, probe, tracking, has_gpu)
        ray.wait(list(asked.values()), num_returns=len(asked), timeout=_ANSWER_S)
        return [
            finding._replace(subject=f"{kind}: {finding.subject}")
            for kind, answer in asked.items()
            for finding in _answer(answer)
        ]
    finally:
        if storage is not None and probe is not None:
            Folder.at(storage).delete(probe)


def kinds_of_nodes(nodes: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """One node of every kind, as in `ray.nodes()`, by a description of the kind."""
    kinds: dict[str, Mapping[str, Any]] = {}
    for node in nodes:
        if not node["Alive"]:
            continue
        amounts = [f"{node['Resources'].get(name, 0):g} {name}" for name in ("CPU", "GPU")]
        group = (node.get("Labels") or {}).get("ray.io/node-group", "node")
        kinds.setdefault(f"{group} ({', '.join(amounts)})", node)
    return kinds


def installed_versions() -> dict[str, str]:
    """Versions of Python and of the packages that must be equal on all nodes."""
    packages = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"python": platform.python_version(), **packages}


def check_node(
    versions: Mapping[str, str],
    storage: str | None,
    probe: str | None,
    tracking: str | None,
    has_gpu: bool,
) -> list[Finding]:
    """Findings of this node.

    Args:
        versions: `installed_versions` of the driver.
        storage: Folder to read and write, by URI.
        probe: File that the driver has written there.
        tracking: Address of the MLflow server.
        has_gpu: Whether Ray offers a GPU here.
    """
    found = [_check_versions(versions)]
    if storage is not None and probe is not None:
        found.append(_check_storage(storage, probe))
    if tracking is not None:
        found.append(_check_tracking(tracking))
    if has_gpu:
        found.append(_check_gpu())
    return found


def _answer(answer: Any) -> list[Finding]:
    try:
        found: list[Finding] = ray.get(answer, timeout=0)
    except ray.exceptions.GetTimeoutError:
        busy = f"no answer in {_ANSWER_S:.0f} s; its GPUs are busy, or the node is about to go"
        return [Finding("note", "node", busy)]
    except ray.exceptions.RayError as error:
        return [Finding("missing", "node", " ".join(str(error).split())[-300:])]
    return found


def _check_versions(versions: Mapping[str, str]) -> Finding:
    here = installed_versions()
    differing = [
        f"{name} {here[name]} here, {wanted} at the driver"
        for name, wanted in versions.items()
        if here[name] != wanted
    ]
    if differing:
        said = f"{'; '.join(differing)}: start all nodes from one image"
        return Finding("missing", "versions", said)
    return Finding("ok", "versions", f"ray {here['ray']}, torch {here['torch']}, as at the driver")


def _check_storage(storage: str, probe: str) -> Finding:
    folder, own = Folder.at(storage), f".audiocalm-probe-{uuid.uuid4().hex}"
    try:
        if not folder.exists(probe):
            said = f"{storage} is another folder here than at the driver; mount shared storage"
            return Finding("missing", "storage", said)
        folder.write_bytes(own, own.encode())
        is_same = folder.read_bytes(own) == own.encode()
        folder.delete(own)
    # Every file system has error classes of its own, and whatever it raises is the finding.
    except Exception as error:  # noqa: BLE001
        return Finding("missing", "storage", f"{storage}: {type(error).__name__}: {error}")
    if not is_same:
        return Finding("missing", "storage", f"{storage} returns other bytes than were written")
    return Finding("ok", "storage", f"{storage} is read and written")


def _check_tracking(tracking: str) -> Finding:
    import httpx

    if not tracking.startswith("http"):
        said = f"{tracking} is a file of one machine; run an MLflow server that all nodes reach"
        return Finding("missing", "tracking", said)
    try:
        answer = httpx.get(f"{tracking.rstrip('/')}/health", timeout=_REQUEST_S)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return Finding("missing", "tracking", f"{tracking}: {error or type(error).__name__}")
    if answer.status_code >= 400:
        return Finding("missing", "tracking", f"{tracking}/health answers {answer.status_code}")
    return Finding("ok", "tracking", f"{tracking} answers")


def _check_gpu() -> Finding:
    import torch

    built = f"torch {torch.__version__} for CUDA {torch.version.cuda}"
    if not torch.cuda.is_available():
        said = f"Ray offers a GPU that {built} cannot use; install a newer driver, or another torch"
        return Finding("missing", "gpu", said)
    total = sum(
        float(torch.ones(8, device=f"cuda:{index}").sum())
        for index in range(torch.cuda.device_count())
    )
    facts = torch.cuda.get_device_properties(0)
    if total != 8 * torch.cuda.device_count():
        return Finding("missing", "gpu", f"{facts.name} computes wrongly")
    return Finding("ok", "gpu", f"{facts.name}, {facts.total_memory / 2**30:.0f} GiB, {built}")
