"""Chat completions of any OpenAI-compatible endpoint: concurrent, rate limited, retried."""

from __future__ import annotations

import base64
import datetime
import email.utils
import json
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from pipeline.audio.files import AudioError
from pipeline.data.rewriting.chat import ChatRequest, Reply, Unanswered
from pipeline.data.rewriting.rate_limiter import RateLimiter
from pipeline.data.rewriting.settings import EndpointSettings
from pipeline.errors import PipelineError, SettingsError

logger = logging.getLogger(__name__)

MAX_REPLY_BYTES = 4 << 20
"""Size above which a response is not taken for a chat completion, bytes."""
_BYTES_PER_TOKEN = 3.5  # of English text in common vocabularies; corrected by what is reported
_TOKENS_PER_AUDIO_S = 25
_FIRST_WAIT_S = 1.0
_TRANSIENT = frozenset({408, 409, 425, 429})
_MISCONFIGURED = {
    401: "the key is missing or wrong",
    403: "the key does not allow it",
    404: "there is no such address or model",
}


class _FailedTryError(Exception):
    """An attempt without a completion; `wait_s` is the wait that the endpoint requested."""

    def __init__(self, reason: Unanswered, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.reason, self.wait_s = reason, wait_s


class ChatEndpoint:
    """Client of an endpoint.

    Args:
        settings: Address, key, limits and retries.
        model: Name of the model at the endpoint.
        share: Share of the allowed rate that this process may use.
        clock: Monotonic time, seconds.
        sleep: Function that waits for a number of seconds.

    Raises:
        PipelineError: If the environment variable of the key is not set.
    """

    def __init__(
        self,
        settings: EndpointSettings,
        model: str,
        share: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.name = model
        self._settings = settings
        self._key = read_key(settings)
        self._clock, self._sleep = clock, sleep
        self._rate_limiter = RateLimiter(
            _part(settings.requests_per_minute, share),
            _part(settings.tokens_per_minute, share),
            clock,
            sleep,
        )
        self._lock = threading.Lock()
        self._failures_in_a_row = 0
        self._down_until = -float("inf")
        self._refusals = 0
        # Loading certificates takes longer than a request; plain http needs none.
        is_secure = settings.base_url.startswith("https:")
        self._verify = httpx.create_ssl_context() if is_secure else False

    def answer(
        self, requests: Sequence[ChatRequest], keep: Callable[[int, Reply], None]
    ) -> list[Reply | Unanswered]:
        """Completions in the order of the requests, as `ChatModel` states.

        Raises:
            SettingsError: If the endpoint refuses the key, the address or the model.
        """

        def one(index: int) -> Reply | Unanswered:
            """The completion of one request, kept as soon as it is there."""
            reply = self._ask(client, requests[index])
            if isinstance(reply, Reply):
                keep(index, reply)
            return reply

        num_threads = min(self._settings.requests_at_once, len(requests))
        with (
            self._connect() as client,
            ThreadPoolExecutor(num_threads) as pool,
        ):
            futures = [pool.submit(one, index) for index in range(len(requests))]
            try:
                return [future.result() for future in futures]
            finally:  # after an error, requests that still wait in the queue are not sent
                pool.shutdown(wait=False, cancel_futures=True)

    def _connect(self) -> httpx.Client:
        return httpx.Client(
            timeout=self._settings.timeout_s, follow_redirects=False, verify=self._verify
        )

    def _ask(self, client: httpx.Client, request: ChatRequest) -> Reply | Unanswered:
        if self._clock() < self._down_until:
            return Unanswered.ENDPOINT_DOWN
        try:
            body = self._body(request)
        except (AudioError, OSError) as error:
            logger.warning("a clip cannot be sent: %s", error)
            return Unanswered.UNREADABLE_AUDIO
        jitter = random.Random(request.key(self.name))
        reason = Unanswered.CONNECTION
        for number in range(self._settings.max_attempts):
            try:
                reply = self._try(client, body, request)
            except _FailedTryError as failed:
                reason = failed.reason
                if reason == Unanswered.REFUSED_REQUEST:
                    return reason
                limit = self._settings.max_wait_s
                if failed.wait_s is not None:
                    self._rate_limiter.pause(min(failed.wait_s, limit))
                elif number + 1 < self._settings.max_attempts:
                    wait_s = min(limit, _FIRST_WAIT_S * 2**number)
                    self._sleep(wait_s * (0.5 + jitter.random() / 2))
            else:
                with self._lock:
                    self._failures_in_a_row = 0
                return reply
        self._count_failure(reason)
        return reason

    def _count_failure(self, reason: Unanswered) -> None:
        with self._lock:
            self._failures_in_a_row += 1
            is_down = self._failures_in_a_row >= self._settings.give_up_after
            if not is_down:
                return
            self._down_until = self._clock() + self._settings.down_for_s
        logger.warning(
            "%s: %d questions in a row without an answer, the last one: %s; not asked for %g s",
            self._settings.base_url,
            self._failures_in_a_row,
            reason,
            self._settings.down_for_s,
        )

    def _try(self, client: httpx.Client, body: bytes, request: ChatRequest) -> Reply:
        expected = _expected_tokens(request)
        self._rate_limiter.wait(expected)
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        url = f"{self._settings.base_url}/chat/completions"
        deadline = self._clock() + self._settings.timeout_s
        try:
            with client.stream("POST", url, content=body, headers=headers) as response:
                payload = self._read(response, deadline)
        except httpx.TimeoutException as error:
            raise _FailedTryError(Unanswered.TIMEOUT) from error
        except httpx.TransportError as error:
            raise _FailedTryError(Unanswered.CONNECTION) from error
        except httpx.HTTPError as error:
            raise _FailedTryError(Unanswered.MALFORMED_REPLY) from error
        self._check_status(response, payload)
        reply, tokens = _parse(payload)
        if tokens is not None:
            self._rate_limiter.correct(tokens - expected)
        return reply

    def _read(self, response: httpx.Response, deadline: float) -> bytes:
        payload = bytearray()
        for chunk in response.iter_bytes():
            payload += chunk
            if len(payload) > MAX_REPLY_BYTES:
                raise _FailedTryError(Unanswered.MALFORMED_REPLY)
            if self._clock() > deadline:  # the client's own limit starts anew with every chunk
                raise _FailedTryError(Unanswered.TIMEOUT)
        return bytes(payload)

    def _check_status(self, response: httpx.Response, payload: bytes) -> None:
        status = response.status_code
        if status in _MISCONFIGURED:
            raise SettingsError(
                f"{self._settings.base_url} answers {status} for model {self.name!r}: "
                f"{_MISCONFIGURED[status]}; it says: {self._quote(payload)}"
            )
        if status == httpx.codes.OK:
            return
        if status in _TRANSIENT or status >= 500:
            is_limit = status == httpx.codes.TOO_MANY_REQUESTS
            reason = Unanswered.RATE_LIMITED if is_limit else Unanswered.SERVER_ERROR
            raise _FailedTryError(reason, retry_after_s(response.headers.get("Retry-After")))
        with self._lock:
            self._refusals += 1
            is_first = self._refusals == 1
        if is_first:
            logger.warning(
                "%s refuses a question with status %d, and says: %s; templates stand in",
                self._settings.base_url,
                status,
                self._quote(payload),
            )
        raise _FailedTryError(Unanswered.REFUSED_REQUEST)

    def _quote(self, payload: bytes) -> str:
        text = payload.decode("utf-8", errors="replace")
        text = text.replace(self._key, "***") if self._key else text
        return json.dumps(" ".join(text.split())[:200], ensure_ascii=False)

    def _body(self, request: ChatRequest) -> bytes:
        messages: list[dict[str, Any]] = [dict(message) for message in request.messages]
        if request.audio is not None:
            encoded = base64.b64encode(request.audio.read()).decode("ascii")
            messages[-1]["content"] = [
                {"type": "text", "text": messages[-1]["content"]},
                {"type": "input_audio", "input_audio": {"data": encoded, "format": "wav"}},
            ]
        body = {
            "model": self.name,
            "messages": messages,
            "temperature": request.temperature,
            "max_tokens": request.max_tokens,
        }
        return json.dumps(request.extra | body, ensure_ascii=False).encode()


def read_key(settings: EndpointSettings) -> str:
    """The key out of the environment; empty if none is named.

    Raises:
        PipelineError: If the variable is not set, or holds what no header can carry.
    """
    if settings.api_key_env is None:
        return ""
    key = os.environ.get(settings.api_key_env, "").strip()
    if not key:
        raise PipelineError(
            f"the environment variable {settings.api_key_env} is not set here; it must hold the "
            f"key of {settings.base_url} wherever workers run (on a cluster: `env_vars` of the "
            "runtime environment), or set api_key_env to null"
        )
    if not (key.isascii() and key.isprintable()):
        raise PipelineError(
            f"the environment variable {settings.api_key_env} holds characters that no key has"
        )
    return key


def retry_after_s(value: str | None) -> float | None:
    """Seconds that a `Retry-After` header asks for; None without one that can be read."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        until = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    now = datetime.datetime.now(datetime.UTC)
    return max(0.0, (until.astimezone(datetime.UTC) - now).total_seconds())


def _parse(payload: bytes) -> tuple[Reply, int | None]:
    try:
        value = json.loads(payload)
        choice = value["choices"][0]
        text = choice["message"]["content"]
        if not isinstance(text, str):
            raise TypeError
        usage = value.get("usage") or {}
        tokens = usage.get("total_tokens")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise _FailedTryError(Unanswered.MALFORMED_REPLY) from error
    # JSON can spell lone surrogates, which no file can hold.
    text = text.encode("utf-8", errors="replace").decode("utf-8")
    reply = Reply(text, choice.get("finish_reason") == "length")
    return reply, tokens if isinstance(tokens, int) else None


def _expected_tokens(request: ChatRequest) -> float:
    size = sum(len(message["content"].encode()) for message in request.messages)
    audio_s = request.audio.duration_s if request.audio else 0.0
    return size / _BYTES_PER_TOKEN + audio_s * _TOKENS_PER_AUDIO_S + request.max_tokens


def _part(limit: float | None, share: float) -> float | None:
    return None if limit is None else limit * share
