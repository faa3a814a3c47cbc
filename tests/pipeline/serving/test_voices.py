"""Names of voices, and voices that clients bring."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from pipeline.errors import PipelineError, SettingsError
from pipeline.serving.app import create_app
from pipeline.serving.settings import ServeSettings
from pipeline.serving.voices import OPENAI_VOICES, aliases_of
from tests.factories.http import error_of, speak
from tests.factories.serving import LocalEngine

CONSENT = "The speaker has agreed."


def embed(path: str) -> list[float]:
    if (recording := Path(path).read_bytes()) == b"noise":
        raise PipelineError(f"{path} holds no voice that can be heard; record one closer")
    return [float(len(recording)), 0.5]


def body(**changes: object) -> dict[str, object]:
    sample = base64.b64encode(b"speech").decode()
    return {"name": "carla", "audio_sample": sample, "consent": CONSENT, **changes}


@pytest.fixture
def keeping(engine: LocalEngine, tmp_path: Path) -> Iterator[TestClient]:
    """An endpoint that keeps up to two voices."""
    settings = ServeSettings(voice_store=str(tmp_path), max_voices=2, max_upload_bytes=2000)
    with TestClient(create_app(engine, settings, embed=embed)) as client:
        yield client


def test_names_of_openai_stand_for_the_voices_in_turn() -> None:
    aliases = aliases_of(["bob", "ada", "nova"], {"alloy": "bob", "boss": "default"})
    assert (aliases["alloy"], aliases["boss"]) == ("bob", "default")
    assert (aliases["ash"], aliases["ballad"], aliases["cedar"]) == ("ada", "bob", "nova")
    assert set(OPENAI_VOICES) <= {*aliases, "nova"}
    assert "nova" not in aliases
    assert set(aliases_of([], {}).values()) == {"default"}


def test_the_list_says_which_voice_words_alone_are_spoken_in(
    client: TestClient, engine: LocalEngine
) -> None:
    def default() -> str:
        voices = client.get("/v1/audio/voices").json()["voices"]
        return str(voices[0]["description"])

    assert default() == "As the request describes it."
    engine.default_voice = "ada"
    assert default() == "As the request describes it; without a description, ada."


def test_an_alias_of_a_voice_that_is_not_there_is_an_error() -> None:
    with pytest.raises(SettingsError, match=r"'alloy' to 'eve', .* there is default, ada"):
        aliases_of(["ada"], {"alloy": "eve"})


def test_a_voice_is_added_used_and_forgotten(
    keeping: TestClient, engine: LocalEngine, tmp_path: Path
) -> None:
    added = keeping.post("/v1/audio/voices", json=body())
    assert added.status_code == 200
    assert added.json()["id"] == "carla"
    assert "carla" in [voice["id"] for voice in keeping.get("/v1/audio/voices").json()["voices"]]
    (path,) = tmp_path.iterdir()
    kept = json.loads(path.read_text())
    assert (kept["consent"], kept["embedding"]) == (CONSENT, [6.0, 0.5])
    assert "speech" not in path.read_text()
    assert speak(keeping, voice="carla").status_code == 200
    assert (engine.jobs[-1].voice, engine.jobs[-1].voice_embedding) == ("default", (6.0, 0.5))
    assert keeping.delete("/v1/audio/voices/carla").json()["deleted"] is True
    assert keeping.delete("/v1/audio/voices/carla").status_code == 404
    speak(keeping, voice="carla")
    assert (engine.jobs[-1].voice, engine.jobs[-1].voice_embedding) == ("carla", None)


def test_a_form_with_a_file_does_the_same(keeping: TestClient, tmp_path: Path) -> None:
    pytest.importorskip("python_multipart")
    fields = {"name": "carla", "consent": CONSENT}
    files = {"audio_sample": ("a.wav", b"speech", "audio/wav")}
    assert keeping.post("/v1/audio/voices", data=fields, files=files).status_code == 200
    assert json.loads(next(tmp_path.iterdir()).read_text())["embedding"] == [6.0, 0.5]
    response = keeping.post("/v1/audio/voices", data={"name": "dora"}, files=files)
    assert error_of(response)["param"] == "consent"
    response = keeping.post(
        "/v1/audio/voices", data=fields | {"audio_sample": "x"}, files={"b": b"x"}
    )
    assert error_of(response)["param"] == "audio_sample"


@pytest.mark.parametrize(
    ("changes", "status", "param"),
    [
        ({"name": "../up"}, 400, "name"),
        ({"name": "A"}, 400, "name"),
        ({"name": "ada"}, 409, "name"),
        ({"name": "alloy"}, 409, "name"),
        ({"name": "default"}, 409, "name"),
        ({"consent": None}, 400, "consent"),
        ({"consent": "........."}, 400, "consent"),
        ({"audio_sample": "no base64!"}, 400, "audio_sample"),
        ({"audio_sample": base64.b64encode(b"noise").decode()}, 400, "audio_sample"),
        ({"audio_sample": "A" * 3000}, 413, None),
        ({"extra": 1}, 400, "extra"),
    ],
)
def test_what_is_no_voice_is_refused(
    keeping: TestClient, tmp_path: Path, changes: dict, status: int, param: str | None
) -> None:
    response = keeping.post("/v1/audio/voices", json=body(**changes))
    assert response.status_code == status
    assert error_of(response)["param"] == param
    assert str(tmp_path) not in response.text
    assert list(tmp_path.iterdir()) == []


def test_names_are_taken_once_and_the_store_has_an_end(keeping: TestClient) -> None:
    assert keeping.post("/v1/audio/voices", json=body()).status_code == 200
    assert keeping.post("/v1/audio/voices", json=body()).status_code == 409
    assert keeping.post("/v1/audio/voices", json=body(name="dora")).status_code == 200
    full = keeping.post("/v1/audio/voices", json=body(name="emil"))
    assert full.status_code == 409
    assert "2 are kept" in error_of(full)["message"]


def test_an_endpoint_without_a_store_says_so(client: TestClient) -> None:
    response = client.post("/v1/audio/voices", json=body())
    assert response.status_code == 403
    assert "voice_store" in error_of(response)["message"]
    assert client.delete("/v1/audio/voices/carla").status_code == 403
