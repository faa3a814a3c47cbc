"""What a node is checked for, on this machine and without Ray."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.node_check import check_node, installed_versions, kinds_of_nodes


def found(subject: str, **changes: object) -> tuple[str, str]:
    """State and detail of one finding of a node."""
    arguments = {
        "versions": installed_versions(), "storage": None, "probe": None, "tracking": None,
        "has_gpu": False,
    }  # fmt: skip
    findings = check_node(**{**arguments, **changes})  # type: ignore[arg-type]
    (one,) = [finding for finding in findings if finding.subject == subject]
    return one.state, one.detail


def test_other_versions_than_the_drivers_are_named() -> None:
    assert found("versions")[0] == "ok"
    state, detail = found("versions", versions={**installed_versions(), "torch": "0.1"})
    assert state == "missing"
    assert "0.1 at the driver: start all nodes from one image" in detail


def test_storage_must_be_the_drivers_and_writable(tmp_path: Path) -> None:
    (tmp_path / "probe").write_text("x")
    assert found("storage", storage=str(tmp_path), probe="probe")[0] == "ok"
    assert [path.name for path in tmp_path.iterdir()] == ["probe"], "nothing is left behind"
    state, detail = found("storage", storage=str(tmp_path), probe="other")
    assert (state, "another folder here" in detail) == ("missing", True)
    (tmp_path / "file").write_text("x")
    state, detail = found("storage", storage=str(tmp_path / "file"), probe="probe")
    assert state == "missing"


@pytest.fixture
def tracking() -> Iterator[str]:
    """A server whose /health answers 200, and all else 404."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the name is the standard library's
            self.send_response(200 if self.path == "/health" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_tracking_must_answer_from_the_node(tracking: str) -> None:
    assert found("tracking", tracking=f"{tracking}/") == ("ok", f"{tracking}/ answers")
    state, detail = found("tracking", tracking=f"{tracking}/other")
    assert (state, "answers 404" in detail) == ("missing", True)
    state, detail = found("tracking", tracking="http://127.0.0.1:9")
    assert state == "missing"
    state, detail = found("tracking", tracking="sqlite:///mlflow.db")
    assert (state, "run an MLflow server" in detail) == ("missing", True)


def test_a_gpu_that_torch_cannot_use_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    state, detail = found("gpu", has_gpu=True)
    assert (state, "install a newer driver" in detail) == ("missing", True)


def test_one_node_of_every_kind_is_asked() -> None:
    nodes = [
        {"NodeID": "a", "Alive": True, "Resources": {"CPU": 4.0}},
        {"NodeID": "b", "Alive": True, "Resources": {"CPU": 4.0}},
        {"NodeID": "c", "Alive": True, "Resources": {"CPU": 8.0, "GPU": 8.0},
         "Labels": {"ray.io/node-group": "train"}},
        {"NodeID": "d", "Alive": False, "Resources": {"CPU": 1.0}},
    ]  # fmt: skip
    kinds = {kind: node["NodeID"] for kind, node in kinds_of_nodes(nodes).items()}
    assert kinds == {"node (4 CPU, 0 GPU)": "a", "train (8 CPU, 8 GPU)": "c"}
