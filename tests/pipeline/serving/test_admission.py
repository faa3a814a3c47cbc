"""A check of the operator before every generation."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from pipeline.errors import SettingsError
from pipeline.serving.admission import load_policy
from pipeline.serving.app import create_app
from pipeline.serving.keys import KEYS_VARIABLE, key_digests
from pipeline.serving.schemas import AudioJob
from pipeline.serving.settings import ServeSettings
from tests.factories.http import error_of, post, speak
from tests.factories.serving import LocalEngine

NUMBER = 7
HERE = "tests.pipeline.serving.test_admission"


def no_ministers(job: AudioJob, label: str | None) -> str | None:
    """The operator's check."""
    if "minister" in (job.transcript or ""):
        return f"{label} may not make ministers speak"
    return None


def broken(job: AudioJob, label: str | None) -> str | None:
    raise KeyError("inner workings")


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """This module under its name, which pytest's importlib mode leaves out."""
    import sys

    monkeypatch.setitem(sys.modules, HERE, sys.modules[__name__])


def test_a_job_that_the_policy_refuses_is_403_and_not_made(here: None, engine: LocalEngine) -> None:
    settings = ServeSettings(policy=f"{HERE}:no_ministers")
    digests = key_digests({KEYS_VARIABLE: f"web:{'k' * 16}"})
    with TestClient(create_app(engine, settings, key_digests=digests)) as client:
        client.headers["Authorization"] = f"Bearer {'k' * 16}"
        refused = speak(client, input="I am the minister.")
        assert refused.status_code == 403
        error = error_of(refused)
        assert (error["message"], error["code"]) == (
            "web may not make ministers speak",
            "policy_violation",
        )
        assert post(client, transcript="the minister").status_code == 403
        assert engine.jobs == []
        assert speak(client).status_code == 200


def test_a_policy_that_breaks_down_lets_nothing_through(here: None, engine: LocalEngine) -> None:
    app = create_app(engine, ServeSettings(policy=f"{HERE}:broken"))
    with TestClient(app, raise_server_exceptions=False) as client:
        response = post(client)
    assert response.status_code == 500
    assert "inner workings" not in response.text
    assert engine.jobs == []


@pytest.mark.parametrize(
    ("path", "message"),
    [("nowhere:x", "cannot be imported"), (f"{HERE}:gone", "gone"), (f"{HERE}:NUMBER", "an? int")],
)
def test_a_policy_that_is_no_function_is_an_error_of_the_settings(
    here: None, path: str, message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        load_policy(path)
