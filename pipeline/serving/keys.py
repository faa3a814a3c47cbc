"""API keys and rate limits."""

from __future__ import annotations

import hashlib
import hmac
import math
import re
import time
from collections.abc import Callable, Mapping

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from pipeline.errors import SettingsError
from pipeline.serving.errors import error_response

KEYS_VARIABLE = "AUDIOCALM_API_KEYS"
"""Environment variable with the keys, as `label:key,label:key`; without it no key is needed."""

OPEN_PATHS = frozenset({"/", "/health", "/ready", "/docs", "/openapi.json"})
"""Paths that need no key: probes, the playground and the documentation make no audio."""
FILES_PATH = "/playground"
"""Path of the files of the playground, which need no key either."""

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_MIN_KEY_CHARS = 16


def key_digests(environment: Mapping[str, str]) -> dict[str, str]:
    """SHA-256 of each key by its label; the keys themselves stay in the environment.

    Args:
        environment: Environment variables, among them perhaps `AUDIOCALM_API_KEYS`.

    Raises:
        SettingsError: If the variable is set and an entry is not `label:key`, a label stands twice
            or a key is shorter than 16 characters. The message names no key.
    """
    text = environment.get(KEYS_VARIABLE)
    if text is None:
        return {}
    digests: dict[str, str] = {}
    for number, entry in enumerate(text.split(","), start=1):
        label, separator, key = entry.strip().partition(":")
        if not separator or not _LABEL.fullmatch(label) or label in digests:
            raise SettingsError(
                f"entry {number} of {KEYS_VARIABLE} is not label:key with a label of its own; "
                "separate entries by commas, as in web:KEY,batch:KEY"
            )
        if len(key) < _MIN_KEY_CHARS or not key.isascii():
            raise SettingsError(
                f"the key of {label!r} in {KEYS_VARIABLE} has fewer than {_MIN_KEY_CHARS} ASCII "
                "characters; take one from `openssl rand -hex 24`"
            )
        digests[label] = _digest(key)
    return digests


class RateLimiter:
    """Rate limiter: a token bucket of one minute's requests for each label.

    Args:
        per_minute: Requests a minute of one label.
        clock: Monotonic clock, seconds.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}

    def wait_s(self, label: str) -> float:
        """Consume a token; returns 0, or the seconds until the next token if none is left."""
        now = self._clock()
        tokens, noted_at = self._buckets.get(label, (float(self._per_minute), now))
        rate = self._per_minute / 60
        tokens = min(float(self._per_minute), tokens + (now - noted_at) * rate)
        is_allowed = tokens >= 1
        self._buckets[label] = (tokens - is_allowed, now)
        return 0.0 if is_allowed else (1 - tokens) / rate


class KeyGuard:
    """Lets requests with a known key through, each label at its rate; `scope["api_key"]` is the
    label.

    Args:
        app: Application to wrap.
        digests: SHA-256 of each key by its label.
        limiter: Rate limiter of the POST requests of each label; None has no limit.
    """

    def __init__(
        self, app: ASGIApp, *, digests: Mapping[str, str], limiter: RateLimiter | None
    ) -> None:
        self._app = app
        self._digests = digests
        self._limiter = limiter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        # Browsers ask with OPTIONS, and without a key, whether they may send one.
        is_open = scope["type"] != "http" or scope["method"] == "OPTIONS"
        if is_open or _needs_no_key(scope["path"]):
            await self._app(scope, receive, send)
            return
        label = self._label(Headers(scope=scope).get("authorization", ""))
        if label is None:
            response = error_response(
                401,
                "no known API key came with the request; send `Authorization: Bearer KEY`",
                headers={"WWW-Authenticate": "Bearer"},
            )
            await response(scope, receive, send)
            return
        if self._limiter is not None and scope["method"] == "POST":
            wait_s = self._limiter.wait_s(label)
            if wait_s > 0:
                message = f"the key {label!r} has no requests left; try again in {wait_s:.0f} s"
                headers = {"Retry-After": str(max(1, math.ceil(wait_s)))}
                await error_response(429, message, headers=headers)(scope, receive, send)
                return
        await self._app({**scope, "api_key": label}, receive, send)

    def _label(self, authorization: str) -> str | None:
        """Label of a key, in constant time."""
        scheme, _, key = authorization.partition(" ")
        digest = _digest(key.strip())
        found = None
        for label, known in self._digests.items():
            if hmac.compare_digest(digest, known):
                found = label
        return found if scheme.lower() == "bearer" else None


def _needs_no_key(path: str) -> bool:
    return path in OPEN_PATHS or path.startswith(f"{FILES_PATH}/")


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
