"""API keys from the environment, and their rates."""

from __future__ import annotations

from functools import partial

import pytest
from fastapi.testclient import TestClient

from pipeline.errors import SettingsError
from pipeline.serving.app import create_app
from pipeline.serving.keys import KEYS_VARIABLE, RateLimiter, key_digests
from pipeline.serving.settings import ServeSettings
from tests.factories.http import error_of
from tests.factories.serving import LocalEngine

WEB, BATCH = "w" * 16, "b" * 24
BODY = {"description": "rain"}


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def client_of(engine: LocalEngine, **settings: object) -> TestClient:
    digests = key_digests({KEYS_VARIABLE: f"web:{WEB}, batch:{BATCH}"})
    app = create_app(engine, ServeSettings.model_validate(settings), key_digests=digests)
    return TestClient(app)


def test_without_the_variable_no_key_is_needed() -> None:
    assert key_digests({}) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "entry 1 of AUDIOCALM_API_KEYS is not label:key"),
        ("justakeywithoutlabel", "entry 1"),
        (f"a:{WEB},a:{BATCH}", "entry 2"),
        (f"a b:{WEB}", "entry 1"),
        ("a:secret", "the key of 'a' .* has fewer than 16"),
    ],
)
def test_entries_that_are_wrong_are_named_without_their_keys(text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        key_digests({KEYS_VARIABLE: text})
    assert "secret" not in str(caught.value)
    assert WEB not in str(caught.value)


@pytest.mark.parametrize(
    "headers",
    [{}, bearer("x" * 16), bearer(""), {"Authorization": WEB}, {"Authorization": f"Basic {WEB}"}],
)
def test_without_a_known_key_it_is_401(engine: LocalEngine, headers: dict[str, str]) -> None:
    with client_of(engine) as client:
        response = client.post("/v1/audio/generations", json=BODY, headers=headers)
        assert response.status_code == 401
        assert error_of(response)["code"] == "invalid_api_key"
        assert response.headers["www-authenticate"] == "Bearer"
        assert client.get("/v1/audio/voices", headers=headers).status_code == 401
    assert engine.jobs == []


def test_every_key_lets_in_and_probes_need_none(engine: LocalEngine) -> None:
    with client_of(engine) as client:
        for key in (WEB, BATCH):
            response = client.post("/v1/audio/generations", json=BODY, headers=bearer(key))
            assert response.status_code == 200
        for path in ("/health", "/ready", "/", "/openapi.json"):
            assert client.get(path).status_code == 200


def test_a_key_that_asks_too_often_waits_and_the_others_do_not(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    still = partial(RateLimiter, clock=lambda: 0.0)
    monkeypatch.setattr("pipeline.serving.app.RateLimiter", still)
    with client_of(engine, requests_per_minute=2) as client:
        statuses = [
            client.post("/v1/audio/generations", json=BODY, headers=bearer(WEB)).status_code
            for _ in range(3)
        ]
        assert statuses == [200, 200, 429]
        refused = client.post("/v1/audio/generations", json=BODY, headers=bearer(WEB))
        assert error_of(refused)["type"] == "rate_limit_error"
        assert 1 <= int(refused.headers["retry-after"]) <= 30
        assert client.get("/v1/models", headers=bearer(WEB)).status_code == 200
        other = client.post("/v1/audio/generations", json=BODY, headers=bearer(BATCH))
        assert other.status_code == 200


def test_a_limiter_refills_with_time() -> None:
    now = [0.0]
    limiter = RateLimiter(6, lambda: now[0])
    assert [limiter.wait_s("a") for _ in range(7)] == [0.0] * 6 + [10.0]
    now[0] = 10.0
    assert [limiter.wait_s("a") for _ in range(2)] == [0.0, 10.0]
    now[0] = 1000.0
    assert [limiter.wait_s("a") for _ in range(7)][5:] == [0.0, 10.0]
