"""`audiocalm serve`: errors before anything starts; the endpoint is tested with Ray Serve."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from jobs.serve import build_app, curl_example, main
from model.bundle import DEFAULT_BUNDLE
from model.bundle.shipped import SHIPPED


def test_no_bundle_is_the_shipped_one_and_a_package_without_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(SHIPPED, DEFAULT_BUNDLE, (tmp_path, "0" * 64))
    monkeypatch.setattr("jobs.serve.serve_until_stopped", lambda settings: None)
    assert main([]) == 1
    assert "built without the bundle audiocalm-tiny" in capsys.readouterr().err
    (tmp_path / "bundle.json").write_text("{}")
    assert main([]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--set", "batch.max_batsh=3"], "did you mean 'batch.max_batch'?"),
        (["--port", "99999"], "'port' is 99999"),
        (["--set", "max_queued_requests=0"], "'max_queued_requests' is 0"),
        (["--set", "autoscale.max_replicas=0"], "max_replicas"),
        (["--set", "autoscale.target_ongoing_requests=99"], "else it never scales"),
        (["--set", "autoscale={min_replicas: 3}"], "min_replicas 3 exceeds max_replicas 1"),
        (["--voices", "nowhere"], "nowhere holds no recordings"),
    ],
)
def test_wrong_settings_are_named(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--bundle", "x", *words]) == 1
    assert message in capsys.readouterr().err


def test_an_application_is_built_from_the_args_of_a_config_file(tmp_path: Path) -> None:
    application = build_app({"bundle": str(tmp_path), "gpus_per_replica": 0})
    assert type(application).__name__ == "Application"
    with pytest.raises(ValidationError, match="bundel"):
        build_app({"bundel": "x"})


def test_the_example_is_a_command_for_the_url() -> None:
    text = curl_example("http://127.0.0.1:8000")
    assert text.startswith("curl ")
    assert "http://127.0.0.1:8000/v1/audio/generations" in text
