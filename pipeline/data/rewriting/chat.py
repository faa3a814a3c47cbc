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
    """An answer that is not the JSON of a chat completion."""
    REFUSED_REQUEST = "refused_request"
    """A status 4xx that concerns this question alone."""
    ENDPOINT_DOWN = "endpoint_down"
    """Not asked: too many questions in a row had no answer."""
    UNREADABLE_AUDIO = "unreadable_audio"


@dataclass(frozen=True)
class SentAudio:
    """Audio that goes with a question.

    Attributes:
        digest: Names it in the cache, so that a remembered answer needs no audio.
        read: Gives it as a WAV file; may raise `AudioError` or `OSError`.
        duration_s: How much of it is sent.
    """

    digest: str
    read: Callable[[], bytes] = field(compare=False)
    duration_s: float = 0.0


@dataclass(frozen=True)
class ChatRequest:
    """One question.

    Attributes:
        messages: `role` and `content`, text alone, in order.
        temperature: Sampling temperature; 0 is greedy.
        max_tokens: Longest answer, tokens.
        extra: More fields of the request's body.
        audio: Sent with the last message.
    """

    messages: tuple[dict[str, str], ...]
    temperature: float
    max_tokens: int
    extra: dict[str, Any] = field(default_factory=dict)
    audio: SentAudio | None = None

    def key(self, model: str) -> str:
        """Digest of all that the answer depends on."""
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
    """An answer: its text, and whether it was cut off at `max_tokens`."""

    text: str
    is_cut_off: bool = False


class ChatModel(Protocol):
    """Answers questions.

    Attributes:
        name: Names the weights in the cache.
    """

    name: str

    def answer(
        self, requests: Sequence[ChatRequest], keep: Callable[[int, Reply], None]
    ) -> list[Reply | Unanswered]:
        """Answers in the order of the questions; `keep` is told each at once, from any thread."""
