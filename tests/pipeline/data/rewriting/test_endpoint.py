from __future__ import annotations

import base64
import datetime
import email.utils
import json
import logging
import threading
import time

import pytest

from pipeline.audio.files import AudioError, AudioFault
from pipeline.data.rewriting.chat import ChatRequest, Reply, SentAudio, Unanswered
from pipeline.data.rewriting.endpoint import ChatEndpoint, retry_after_s
from pipeline.data.rewriting.settings import EndpointSettings
from pipeline.errors import PipelineError
from pipeline.settings import save_settings
from tests.factories.chat_server import Answer, chat_server

KEY_NAME = "TEST_CHAT_KEY"
KEY = "sk-secret-0123456789"


class Waits:
    """A clock that only moves when somebody sleeps."""

    def __init__(self) -> None:
        self.now, self.slept, self._lock = 0.0, [], threading.Lock()

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self.slept.append(seconds)
            self.now += seconds


def question(text: str = "Reword this.", **given) -> ChatRequest:
    return ChatRequest(({"role": "user", "content": text},), 0.5, 50, **given)


def ask_server(respond, requests, waits=None, **settings):
    """Answers, kept answers, the server, and the waits of a run against a scripted endpoint."""
    waits, kept = waits or Waits(), {}
    with chat_server(respond) as server:
        reached = EndpointSettings(base_url=server.base_url, **settings)
        endpoint = ChatEndpoint(reached, "writer", clock=waits.clock, sleep=waits.sleep)
        answers = endpoint.answer(requests, kept.setdefault)
    return answers, kept, server, waits


def one_by_one(*answers: Answer):
    return lambda _body, number: answers[min(number, len(answers) - 1)]


def test_question_goes_out_as_a_chat_completion_and_comes_back():
    request = question(extra={"chat_template_kwargs": {"enable_thinking": False}})
    answers, kept, server, _ = ask_server(one_by_one(Answer("A dog.")), [request])
    assert answers == [Reply("A dog.")]
    assert kept == {0: Reply("A dog.")}
    assert server.bodies == [
        {
            "_path": "/v1/chat/completions",
            "model": "writer",
            "messages": [{"role": "user", "content": "Reword this."}],
            "temperature": 0.5,
            "max_tokens": 50,
            "chat_template_kwargs": {"enable_thinking": False},
        }
    ]
    assert "Authorization" not in server.headers[0]


def test_answers_keep_the_order_of_many_questions_at_once():
    requests = [question(f"number {index}") for index in range(40)]
    answers, kept, server, _ = ask_server(
        lambda body, _n: Answer(body["messages"][0]["content"].upper()), requests
    )
    assert answers == [Reply(f"NUMBER {index}") for index in range(40)]
    assert kept == dict(enumerate(answers))
    assert len(server.bodies) == 40


def test_limit_of_rate_with_retry_after_is_waited_for():
    busy = Answer(status=429, headers={"Retry-After": "7"}, body=b"{}")
    answers, _, server, waits = ask_server(one_by_one(busy, Answer("Rain.")), [question()])
    assert answers == [Reply("Rain.")]
    assert len(server.bodies) == 2
    assert waits.slept == [7.0]


def test_retry_after_is_cut_to_the_longest_wait():
    busy = Answer(status=429, headers={"Retry-After": "86400"}, body=b"{}")
    _, _, _, waits = ask_server(one_by_one(busy, Answer("Rain.")), [question()], max_wait_s=30)
    assert waits.slept == [30.0]


def test_retry_after_may_be_a_date():
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
    assert 3000 < retry_after_s(email.utils.format_datetime(later)) <= 3600
    assert retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert retry_after_s("3") == 3.0
    assert retry_after_s("soon") is None
    assert retry_after_s(None) is None


def test_server_errors_are_tried_again_after_growing_pauses():
    broken = Answer(status=500, body=b"oops")
    answers, _, server, waits = ask_server(
        one_by_one(broken, broken, broken, Answer("Rain.")), [question()]
    )
    assert answers == [Reply("Rain.")]
    assert len(server.bodies) == 4
    assert all(2**n / 2 <= wait <= 2**n for n, wait in enumerate(waits.slept))


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer(status=429, body=b"{}"), Unanswered.RATE_LIMITED),
        (Answer(status=503, body=b"{}"), Unanswered.SERVER_ERROR),
        (Answer(body=b"<html>not json"), Unanswered.MALFORMED_REPLY),
        (Answer(body=b'{"choices": []}'), Unanswered.MALFORMED_REPLY),
        (Answer(body=b"[1]"), Unanswered.MALFORMED_REPLY),
        (Answer(body=b'{"choices": [{"message": {"content": null}}]}'), Unanswered.MALFORMED_REPLY),
        (Answer(body=b"x" * (5 << 20)), Unanswered.MALFORMED_REPLY),
    ],
)
def test_question_that_never_gets_an_answer_says_why(answer, reason):
    answers, kept, server, _ = ask_server(one_by_one(answer), [question()], max_attempts=3)
    assert answers == [reason]
    assert kept == {}
    assert len(server.bodies) == 3


def test_endpoint_that_hangs_is_a_timeout():
    waits = Waits()
    with chat_server(one_by_one(Answer(hangs=True))) as server:
        reached = EndpointSettings(base_url=server.base_url, timeout_s=0.1, max_attempts=2)
        endpoint = ChatEndpoint(reached, "writer", clock=waits.clock, sleep=waits.sleep)
        assert endpoint.answer([question()], lambda *_: None) == [Unanswered.TIMEOUT]
        # A busy server may read a request after its client has given up.
        deadline = time.monotonic() + 60
        while len(server.bodies) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.005)


def test_endpoint_that_is_not_there_is_a_lost_connection():
    waits = Waits()
    nowhere = EndpointSettings(base_url="http://127.0.0.1:9/v1", max_attempts=2)
    endpoint = ChatEndpoint(nowhere, "writer", clock=waits.clock, sleep=waits.sleep)
    assert endpoint.answer([question()], lambda *_: None) == [Unanswered.CONNECTION]


def test_refused_question_is_not_repeated_and_harms_no_other():
    def respond(body, _number):
        if body["messages"][0]["content"] == "bad":
            return Answer(status=400, body=b'{"error": "context too long"}')
        return Answer("Fine.")

    answers, _, server, _ = ask_server(respond, [question("bad"), question("good")])
    assert answers == [Unanswered.REFUSED_REQUEST, Reply("Fine.")]
    assert len(server.bodies) == 2


def test_endpoint_that_is_down_is_left_alone_for_a_while():
    requests = [question(f"{n}") for n in range(10)]
    answers, _, server, _ = ask_server(
        one_by_one(Answer(status=502)),
        requests,
        max_attempts=1,
        give_up_after=3,
        requests_at_once=1,
    )
    assert answers == [Unanswered.SERVER_ERROR] * 3 + [Unanswered.ENDPOINT_DOWN] * 7
    assert len(server.bodies) == 3


def test_endpoint_that_recovers_is_asked_again():
    waits, kept = Waits(), {}
    script = one_by_one(Answer(status=502), Answer(status=502), Answer("Rain."))
    with chat_server(script) as server:
        reached = EndpointSettings(
            base_url=server.base_url, max_attempts=1, give_up_after=2, down_for_s=60
        )
        endpoint = ChatEndpoint(reached, "writer", clock=waits.clock, sleep=waits.sleep)

        def ask_one():
            return endpoint.answer([question()], kept.setdefault)[0]

        assert [ask_one() for _ in range(3)][-1] == Unanswered.ENDPOINT_DOWN
        waits.now += 61
        assert ask_one() == Reply("Rain.")


@pytest.mark.parametrize("status", [401, 403, 404])
def test_wrong_key_or_model_is_an_error_and_not_a_fallback(status, monkeypatch):
    monkeypatch.setenv(KEY_NAME, KEY)
    echo = Answer(status=status, body=f'{{"error": "bad key {KEY}"}}'.encode())
    with pytest.raises(PipelineError, match=f"answers {status} for model 'writer'") as caught:
        ask_server(one_by_one(echo), [question()], api_key_env=KEY_NAME)
    assert KEY not in str(caught.value)


def test_key_is_sent_and_neither_logged_nor_saved(monkeypatch, caplog):
    monkeypatch.setenv(KEY_NAME, KEY)
    caplog.set_level(logging.DEBUG)
    settings = EndpointSettings(api_key_env=KEY_NAME)
    refused = Answer(status=400, body=f"you sent {KEY}".encode())
    _, _, server, _ = ask_server(one_by_one(refused), [question()], api_key_env=KEY_NAME)
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert "you sent ***" in caplog.text
    assert KEY not in caplog.text
    assert KEY not in save_settings(settings)
    assert KEY not in repr(settings)


@pytest.mark.parametrize("value", [None, "", "two\nlines", "schlüssel"])
def test_unusable_key_names_its_variable_and_not_its_value(value, monkeypatch):
    if value is None:
        monkeypatch.delenv(KEY_NAME, raising=False)
    else:
        monkeypatch.setenv(KEY_NAME, value)
    with pytest.raises(PipelineError, match=KEY_NAME) as caught:
        ChatEndpoint(EndpointSettings(api_key_env=KEY_NAME), "writer")
    assert not value or value not in str(caught.value)


@pytest.mark.parametrize(
    "field",
    [
        {"base_url": "ftp://host/v1"},
        {"base_url": "http://user:key@host/v1"},
        {"base_url": "http://host/v1?key=abc"},
        {"api_key_env": "sk-secret-0123"},
    ],
)
def test_settings_refuse_what_is_no_address_or_holds_a_key(field):
    with pytest.raises(ValueError, match=r"address|environment variable"):
        EndpointSettings(**field)


def test_audio_goes_along_as_base64_wav():
    request = question(audio=SentAudio("digest", lambda: b"RIFF...", 1.0))
    _, _, server, _ = ask_server(one_by_one(Answer("Rain.")), [request])
    text, audio = server.bodies[0]["messages"][0]["content"]
    assert text == {"type": "text", "text": "Reword this."}
    assert audio["type"] == "input_audio"
    assert audio["input_audio"]["format"] == "wav"
    assert base64.b64decode(audio["input_audio"]["data"]) == b"RIFF..."


def test_clip_that_cannot_be_read_is_a_reason_and_no_request():
    def read() -> bytes:
        raise AudioError(AudioFault.UNREADABLE, "gone")

    answers, _, server, _ = ask_server(
        one_by_one(Answer("Rain.")), [question(audio=SentAudio("digest", read, 1.0))]
    )
    assert answers == [Unanswered.UNREADABLE_AUDIO]
    assert server.bodies == []


def test_requests_are_spaced_by_the_allowed_rate():
    requests = [question(f"{n}") for n in range(4)]
    _, _, _, waits = ask_server(
        one_by_one(Answer("Rain.")), requests, requests_per_minute=30, requests_at_once=1
    )
    assert sum(waits.slept) == pytest.approx(6.0)  # three gaps of two seconds


def test_text_that_utf8_cannot_hold_is_replaced():
    body = json.dumps({"choices": [{"message": {"content": "a \ud800 b"}}]}).encode()
    answers, _, _, _ = ask_server(one_by_one(Answer(body=body)), [question()])
    assert answers == [Reply("a ? b")]
