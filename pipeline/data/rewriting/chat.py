"""One question to a chat model and what may come back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from pipeline.settings import digest_of


class Unanswered(StrEnum):
    """Why a question has no answer; none of these is remembered, so a later run asks again."""

    TIMEOUT = "timeout"
    CONNECTION = "connection"
    RATE_LIMITED = "rate_limited"
    SERVER_ERROR = "server_error"
    MALFORMED_REPLY = "malformed_reply"
    """A response that is not the JSON of a chat completion."""
    REFUSED_REQUEST = "refused_request"
    """A status 4xx that concerns this request alone."""
    ENDPOINT_DOWN = "endpoint_down"
    """The request was not sent: too many in a row had no completion."""
    UNREADABLE_AUDIO = "unreadable_audio"


@dataclass(frozen=True)
class SentAudio:
    """Audio of a request.

    Attributes:
        digest: Digest that stands for it in the cache, so that a cached completion needs no audio.
        read: Function that returns it as a WAV file; may raise `AudioError` or `OSError`.
        duration_s: Duration of the part that is sent, seconds.
    """

    digest: str
    read: Callable[[], bytes] = field(compare=False)
    duration_s: float = 0.0


@dataclass(frozen=True)
class ChatRequest:
    """One request for a chat completion.

    Attributes:
        messages: `role` and `content`, text alone, in order.
        temperature: Sampling temperature; 0 is greedy.
        max_tokens: Longest completion, tokens.
        extra: Further fields of the request body.
        audio: Audio that is sent with the last message.
    """

    messages: tuple[dict[str, str], ...]
    temperature: float
    max_tokens: int
    extra: dict[str, Any] = field(default_factory=dict)
    audio: SentAudio | None = None

    def key(self, model: str) -> str:
        """Digest of everything that the completion depends on."""
        return digest_of(
            {
                "model": model,
                "messages": self.messages,
                "temperature": self.temperature,
                "max_tokens": self.max_tokens,
                "extra": self.extra,
                "audio": self.audio.digest if self.audio else None,
            }
        )


@dataclass(frozen=True)
class Reply:
    """A completion: its text, and whether it was cut off at `max_tokens`."""

    text: str
    is_cut_off: bool = False


class ChatModel(Protocol):
    """A language model or captioner, local or at an endpoint.

    Attributes:
        name: Name of the weights in the cache.
    """

    name: str

    def answer(
        self, requests: Sequence[ChatRequest], keep: Callable[[int, Reply], None]
    ) -> list[Reply | Unanswered]:
        """Completions in the order of the requests; `keep` gets each at once, from any thread."""
