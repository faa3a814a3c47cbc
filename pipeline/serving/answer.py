"""What passes between a worker that makes audio, the engine around it, and the HTTP interface."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from pipeline.serving.formats import AudioLayout
from pipeline.serving.schemas import AudioJob

HandleT = TypeVar("HandleT")


class RefusedError(ValueError):
    """A worker cannot make what a request asks for."""

    def __init__(self, param: str, message: str) -> None:
        super().__init__(param, message)
        self.param = param
        self.message = message


@dataclass(frozen=True)
class Usage:
    """What a request cost, as OpenAI's clients read it.

    Attributes:
        input_tokens: Tokens of the prompts that the model read.
        output_tokens: Latent frames that it made.
    """

    input_tokens: int
    output_tokens: int


@dataclass(frozen=True)
class Opening:
    """First item of an answer, sent together with its first chunk.

    Attributes:
        layout: Rate and channels of the chunks.
        tempo: Factor of speed that the chunks still lack; the model does not know the speaking
            rate where it is not 1.
    """

    layout: AudioLayout
    tempo: float = 1.0


@dataclass(frozen=True)
class Refusal:
    """Only item of an answer that is none.

    Attributes:
        status: HTTP status.
        message: The value received, the limit and the remedy.
        param: Field of the request at fault.
        code: Word for programs; None is the usual one of the status.
    """

    status: int
    message: str
    param: str | None = None
    code: str | None = None


@dataclass(frozen=True)
class Ending:
    """Last item of a complete answer.

    Attributes:
        is_capped: Whether speech reached its longest duration before the model ended it.
        usage: What it cost, where the worker counts.
    """

    is_capped: bool = False
    usage: Usage | None = None


Item = Opening | Refusal | bytes | Ending
"""What an answer consists of: an opening, PCM chunks and an ending, or one refusal."""


@dataclass(frozen=True)
class Step:
    """What a step gave for one request.

    Attributes:
        samples: PCM bytes; empty while the codec looks ahead.
        is_last: Whether the audio is complete.
        failure: Why the request cannot go on, in words for the client; None while all is well.
        is_capped: Whether speech has reached its longest duration without ending by itself.
        usage: What the request cost, in its last step.
    """

    samples: bytes
    is_last: bool
    failure: str | None = None
    is_capped: bool = False
    usage: Usage | None = None


class Worker(Protocol[HandleT]):
    """What makes audio; called from one thread."""

    layout: AudioLayout

    def tempo(self, job: AudioJob) -> float:
        """Factor of speed that the audio of a job will still lack."""

    def open(self, job: AudioJob) -> HandleT:
        """Begin a request; raises `RefusedError` if it cannot be made."""

    def step(self, handles: Sequence[HandleT]) -> list[Step]:
        """Advance each request by one block; if it raises, none of them is stepped again."""

    def close(self, handle: HandleT) -> None:
        """Free what a request holds, ended or not; it is not stepped again."""

    def warm_up(self) -> None:
        """Generate a little for nobody; raises if that is not possible."""
