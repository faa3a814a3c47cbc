from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import pytest
import soundfile

from pipeline.data.describe import DescribeSettings, describe
from pipeline.data.encode import EncodeResources, EncodeSettings, encode
from pipeline.data.prepare import summary
from pipeline.errors import PipelineError, TooManyFallbacksError
from pipeline.settings import load_settings
from pipeline.storage import Folder, read_tables
from tests.factories.chat_server import Answer, chat_server, draft_of
from tests.factories.clips import small_corpus, write_clips, write_codec
from tests.factories.stage import snapshot

PLAIN = DescribeSettings(resources={"workers": 0})


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("describe_models")
    clips = write_clips(root / "clips", small_corpus())
    settings = EncodeSettings(resources=EncodeResources(workers=0))
    encode(clips, Folder.at(root / "latents"), settings, write_codec(root / "codec"))
    run(root, root / "plain", PLAIN)
    return root


def run(root: Path, out: Path, settings: DescribeSettings) -> dict:
    clips, latents = Folder.at(root / "clips"), Folder.at(root / "latents")
    return describe(clips, latents, Folder.at(out), settings)


def rows_of(folder: Path) -> dict[str, dict]:
    target = Folder.at(folder)
    names = [f"parts/{name}" for name in target.child("parts").files(".parquet")]
    return {row["clip_id"]: row for row in read_tables(target, names).to_pylist()}


def with_endpoint(server, **given) -> DescribeSettings:
    values = {
        "rewrite": {"source": "endpoint", "model": "writer"},
        "endpoint": {"base_url": server.base_url, "max_attempts": 1, "give_up_after": 1000},
        "resources": {"workers": 0},
    }
    return DescribeSettings.model_validate(values | given)


def prefixed(body, _number) -> Answer:
    return Answer(f"In short: {draft_of(body)}")


def test_last_texts_are_rewritten_and_the_others_stay(corpus, tmp_path):
    with chat_server(prefixed) as server:
        card = run(corpus, tmp_path / "out", with_endpoint(server))
    plain = rows_of(corpus / "plain")
    for clip_id, row in rows_of(tmp_path / "out").items():
        before = plain[clip_id]["descriptions"]
        assert row["descriptions"][:2] == before[:2]
        assert row["descriptions"][2:] == [f"In short: {text}" for text in before[2:]]
        assert row["source"] == "rewritten"
        assert row["transcript"] == plain[clip_id]["transcript"]
        assert row["recipe_digest"] != plain[clip_id]["recipe_digest"]
    assert card["models"] == {"rewrite": {"used": 20}}
    assert len(server.bodies) == 20
    assert "describe: 20 x rewrite used" in summary({"describe": card})


def test_run_with_a_full_cache_asks_nothing_and_has_the_same_bytes(corpus, tmp_path):
    cache = {"cache": str(tmp_path / "cache")}
    with chat_server(prefixed) as server:
        run(corpus, tmp_path / "one", with_endpoint(server, **cache))
        asked = len(server.bodies)
        run(corpus, tmp_path / "two", with_endpoint(server, **cache))
        assert len(server.bodies) == asked == 20
    # Also where no endpoint is any more.
    gone = with_endpoint(server, **cache)
    run(corpus, tmp_path / "three", gone)
    assert snapshot(tmp_path / "one") == snapshot(tmp_path / "two") == snapshot(tmp_path / "three")


def test_up_to_date_stage_asks_nothing(corpus, tmp_path):
    with chat_server(prefixed) as server:
        settings = with_endpoint(server)
        first = run(corpus, tmp_path / "out", settings)
        before = snapshot(tmp_path / "out")
        reached = settings.endpoint.model_copy(update={"requests_at_once": 2})
        again = run(corpus, tmp_path / "out", settings.model_copy(update={"endpoint": reached}))
        assert len(server.bodies) == 20
    assert again == first
    assert snapshot(tmp_path / "out") == before


def test_unusable_answers_fall_back_to_the_template_and_are_counted(corpus, tmp_path):
    replies = ["Here is your text.", "**Bold**", "", "Two\nlines"]

    def respond(_body, number):
        return Answer(replies[number % 4])

    with chat_server(respond) as server:
        card = run(
            corpus,
            tmp_path / "out",
            with_endpoint(server, endpoint={"base_url": server.base_url, "requests_at_once": 1}),
        )
    reasons = ("meta_talk", "markup", "empty", "not_one_paragraph")
    assert card["models"]["rewrite"] == {f"fell_back: {reason}": 5 for reason in reasons}
    plain = rows_of(corpus / "plain")
    for clip_id, row in rows_of(tmp_path / "out").items():
        assert row["descriptions"] == plain[clip_id]["descriptions"]
        assert row["source"] == plain[clip_id]["source"]


def test_endpoint_that_is_down_fails_nothing_unless_the_recipe_says_so(corpus, tmp_path):
    with chat_server(lambda *_: Answer(status=503)) as server:
        card = run(corpus, tmp_path / "out", with_endpoint(server))
        assert card["models"]["rewrite"] == {"fell_back: server_error": 20}
        strict = with_endpoint(server, max_fallback_share=0.5)
        with pytest.raises(TooManyFallbacksError, match=r"20 of 20 .* \(100.0%, limit 50.0%\)"):
            run(corpus, tmp_path / "strict", strict)
    assert not Folder.at(tmp_path / "strict").is_complete


def test_stage_that_failed_on_its_limit_goes_on_when_the_endpoint_is_back(corpus, tmp_path):
    is_up = []

    def respond(body, number):
        return prefixed(body, number) if is_up else Answer(status=503)

    with chat_server(respond) as server:
        strict = with_endpoint(server, max_fallback_share=0.1)
        with pytest.raises(TooManyFallbacksError):
            run(corpus, tmp_path / "out", strict)
        is_up.append(True)
        card = run(corpus, tmp_path / "out", strict)
        run(corpus, tmp_path / "undisturbed", strict)
    assert card["models"]["rewrite"] == {"used": 20}
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "undisturbed")


def test_a_complete_stage_repeats_failed_requests_only_with_redo_unanswered(corpus, tmp_path):
    is_up = []

    def respond(body, number):
        return prefixed(body, number) if is_up else Answer(status=503)

    with chat_server(respond) as server:
        settings = with_endpoint(server)
        run(corpus, tmp_path / "out", settings)
        is_up.append(True)
        asked = len(server.bodies)
        run(corpus, tmp_path / "out", settings)
        assert len(server.bodies) == asked
        told = settings.model_copy(update={"redo_unanswered": True})
        card = run(corpus, tmp_path / "out", told)
    assert card["models"]["rewrite"] == {"used": 20}


def test_wrong_key_stops_the_stage_and_shows_nowhere(corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("TEST_CHAT_KEY", "sk-secret-42")
    with chat_server(lambda *_: Answer(status=401, body=b"sk-secret-42")) as server:
        reached = {"base_url": server.base_url, "api_key_env": "TEST_CHAT_KEY"}
        settings = with_endpoint(server, endpoint=reached)
        with pytest.raises(PipelineError, match="answers 401") as caught:
            run(corpus, tmp_path / "out", settings)
        assert "sk-secret" not in str(caught.value)
    monkeypatch.delenv("TEST_CHAT_KEY")
    with pytest.raises(PipelineError, match="TEST_CHAT_KEY is not set"):
        run(corpus, tmp_path / "out", settings)


def test_key_is_in_no_file(corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("TEST_CHAT_KEY", "sk-secret-42")
    with chat_server(prefixed) as server:
        reached = {"base_url": server.base_url, "api_key_env": "TEST_CHAT_KEY"}
        run(corpus, tmp_path / "out", with_endpoint(server, endpoint=reached))
        assert server.headers[0]["Authorization"] == "Bearer sk-secret-42"
    for payload in (snapshot(tmp_path)).values():
        assert payload is None or b"sk-secret" not in payload
    assert "endpoint" not in Folder.at(tmp_path / "out").card()["settings"]


def test_texts_in_the_language_of_the_clip_where_asked_for(corpus, tmp_path):
    german = "Jemand spricht langsam und mit leiser Stimme."

    def respond(body, _number):
        question = body["messages"][-1]["content"]
        return Answer(german if "Language: German" in question else draft_of(body))

    rewrite = {"source": "endpoint", "model": "writer", "language": "clip", "texts_per_clip": 1}
    with chat_server(respond) as server:
        run(corpus, tmp_path / "out", with_endpoint(server, rewrite=rewrite))
    rows = rows_of(tmp_path / "out")
    assert rows["talk/0"]["descriptions"][-1] == german
    assert rows["talk/1"]["descriptions"] == rows_of(corpus / "plain")["talk/1"]["descriptions"]


def caption_settings(server, **given) -> DescribeSettings:
    listens = {"source": "endpoint", "model": "listener", "max_s": 1.0, "sample_rate": 8000}
    values = {"rewrite": {"source": "none"}, "caption": listens}
    return with_endpoint(server, **(values | given))


def test_captions_come_from_the_audio_of_clips_without_one(corpus, tmp_path):
    with chat_server(lambda *_: Answer("A steady hiss in an empty room.")) as server:
        card = run(corpus, tmp_path / "out", caption_settings(server))
    assert card["models"] == {"caption": {"used": 5}}  # three sounds, two musical clips
    rows = rows_of(tmp_path / "out")
    assert rows["noise/0"]["descriptions"][0] == "A steady hiss in an empty room."
    assert rows["noise/0"]["source"] == "audio_caption"
    assert rows["tune/1"]["descriptions"][0] == "A single steady tone."
    assert rows["talk/0"] == rows_of(corpus / "plain")["talk/0"] | {
        "recipe_digest": rows["talk/0"]["recipe_digest"]
    }
    part = server.bodies[0]["messages"][-1]["content"][1]
    wav = base64.b64decode(part["input_audio"]["data"])
    info = soundfile.info(io.BytesIO(wav))
    assert (info.samplerate, info.channels, info.subtype) == (8000, 1, "PCM_16")
    assert info.frames <= 8000


def test_remembered_captions_read_no_audio(corpus, tmp_path, monkeypatch):
    cache = {"cache": str(tmp_path / "cache")}
    with chat_server(lambda *_: Answer("A steady hiss in a room.")) as server:
        run(corpus, tmp_path / "one", caption_settings(server, **cache))

        def no_audio(*_args, **_given):
            raise AssertionError("a remembered caption must not read audio")

        monkeypatch.setattr("pipeline.data.rewriting.rewriter.read_audio", no_audio)
        run(corpus, tmp_path / "two", caption_settings(server, **cache))
    assert snapshot(tmp_path / "one") == snapshot(tmp_path / "two")


def test_captions_are_rewritten_too(corpus, tmp_path):
    def respond(body, number):
        if body["model"] == "listener":
            return Answer("A steady hiss in an empty room.")
        return prefixed(body, number)

    rewrite = {"source": "endpoint", "model": "writer", "texts_per_clip": 4}
    with chat_server(respond) as server:
        settings = caption_settings(server, rewrite=rewrite)
        card = run(corpus, tmp_path / "out", settings)
    assert card["models"]["caption"] == {"used": 5}
    first = rows_of(tmp_path / "out")["noise/0"]["descriptions"][0]
    assert first == "In short: A steady hiss in an empty room."


def test_settings_without_a_model_are_refused(tmp_path):
    with pytest.raises(ValueError, match="needs `model`"):
        load_settings(DescribeSettings, None, ["rewrite.source=endpoint"])
    with pytest.raises(ValueError, match="needs `model`"):
        load_settings(DescribeSettings, None, ["caption.source=endpoint"])


def test_damaged_answer_in_the_cache_is_asked_again(corpus, tmp_path):
    cache = tmp_path / "cache"
    with chat_server(prefixed) as server:
        settings = with_endpoint(server, cache=str(cache))
        run(corpus, tmp_path / "one", settings)
        entry = sorted(cache.glob("??/*.json"))[0]
        assert json.loads(entry.read_text())["text"].startswith("In short: ")
        entry.write_text("{")
        run(corpus, tmp_path / "two", settings)
        assert len(server.bodies) == 21
    assert snapshot(tmp_path / "one") == snapshot(tmp_path / "two")


def test_recipe_is_valid_and_holds_no_key():
    recipe = Path(__file__).parents[3] / "jobs" / "configs" / "describe_endpoint.yaml"
    settings = load_settings(DescribeSettings, recipe)
    assert settings.rewrite.source == settings.caption.source == "endpoint"
    assert settings.endpoint.api_key_env is None
