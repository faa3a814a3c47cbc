"""What Prometheus reads from the nodes of the connected Ray: by its server, or by its parser."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import ray
from prometheus_client.parser import text_string_to_metric_families

from tests.factories.http import free_port

_TIMEOUT_S = 300


def exporters() -> list[str]:
    """Addresses where the nodes export their metrics."""
    return [f"{node['NodeManagerAddress']}:{node['MetricsExportPort']}" for node in ray.nodes()]


def exported() -> dict[str, float]:
    """Samples on the pages of all nodes, summed by name."""
    found: dict[str, float] = {}
    for address in exporters():
        page = httpx.get(f"http://{address}/metrics", timeout=_TIMEOUT_S).text
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found


@contextlib.contextmanager
def prometheus(folder: Path) -> Iterator[Callable[[str], list[dict]] | None]:
    """A Prometheus that scrapes the nodes, as a function that answers queries; None where it is not
    installed."""
    program = shutil.which("prometheus")
    if program is None:
        yield None
        return
    scrape = {"job_name": "ray", "static_configs": [{"targets": exporters()}]}
    # Rates over a minute need two samples in it, and a busy node takes seconds for its page.
    times = {"scrape_interval": "15s", "scrape_timeout": "15s"}
    settings = {"global": times, "scrape_configs": [scrape]}
    (folder / "prometheus.yml").write_text(json.dumps(settings))  # JSON is YAML
    address = f"127.0.0.1:{free_port()}"
    process = subprocess.Popen(
        [
            program,
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={address}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def query(expression: str) -> list[dict]:
        """Series of an instant query; none before the server is up."""
        assert process.poll() is None, f"prometheus ended with {process.returncode}"
        try:
            answer = httpx.get(
                f"http://{address}/api/v1/query", params={"query": expression}, timeout=_TIMEOUT_S
            )
        except httpx.ConnectError:
            return []
        if answer.status_code == 503:  # it starts
            return []
        assert answer.status_code == 200, f"{expression}: {answer.text}"
        return list(answer.json()["data"]["result"])

    try:
        yield query
    finally:
        process.terminate()
        process.wait()
