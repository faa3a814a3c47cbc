"""Messages between the worker that generates audio, the engine that batches it, and HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from pipeline.serving.formats import AudioLayout
from pipeline.serving.schemas import AudioJob

HandleT = TypeVar("HandleT")


class RefusedError(ValueError):
    """A worker refuses a request."""

    def __init__(self, param: str, message: str) -> None:
        super().__init__(param, message)
        self.param = param
        self.message = message


class BusyError(RuntimeError):
    """A worker has no memory for a request until others have ended."""


@dataclass(frozen=True)
class Usage:
    """Token usage of a request, in OpenAI's terms.

    Attributes:
        input_tokens: Prompt tokens.
        output_tokens: Generated latent frames.
    """

    input_tokens: int
    output_tokens: int


@dataclass(frozen=True)
class Opening:
    """First item of an answer, sent with the first chunk.

    Attributes:
        layout: Rate and channels of the chunks.
        model: SHA-256 of the bundle.
        tempo: Factor by which the audio must still be sped up; 1 if the model has applied the
            requested speed itself.
    """

    layout: AudioLayout
    model: str
    tempo: float = 1.0


@dataclass(frozen=True)
class Refusal:
    """Only item of the answer to a refused request.

    Attributes:
        status: HTTP status.
        message: The value received, the limit and the remedy.
        param: Field of the request at fault.
        code: Machine-readable error code; None takes the default of the status.
    """

    status: int
    message: str
    param: str | None = None
    code: str | None = None


@dataclass(frozen=True)
class Ending:
    """Last item of a complete answer.

    Attributes:
        is_capped: Whether speech was cut off at its maximum duration.
        usage: Token usage; None if the worker does not report it.
    """

    is_capped: bool = False
    usage: Usage | None = None


Item = Opening | Refusal | bytes | Ending
"""Items of an answer: an opening, PCM chunks and an ending, or one refusal."""


@dataclass(frozen=True)
class Step:
    """Result of one step for one request.

    Attributes:
        samples: PCM bytes; empty while the codec waits for lookahead.
        is_last: Whether the audio is complete.
        failure: Error message for the client; None on success.
        is_capped: Whether speech was cut off at its maximum duration.
        usage: Token usage, set in the last step.
        is_waiting: Whether the step did nothing, since there is no memory for the next part of the
            request; it is stepped again when another has freed some.
        frees_memory: Whether the request freed memory, though it goes on.
    """

    samples: bytes
    is_last: bool
    failure: str | None = None
    is_capped: bool = False
    usage: Usage | None = None
    is_waiting: bool = False
    frees_memory: bool = False


class Worker(Protocol[HandleT]):
    """Generates audio; all methods are called from one thread."""

    layout: AudioLayout

    def opening(self, job: AudioJob) -> Opening:
        """Layout, bundle and remaining tempo change of the audio of a job."""

    def open(self, job: AudioJob) -> HandleT:
        """Begin a request; raises `RefusedError` if it cannot be made, and `BusyError` if it must
        wait for others to end."""

    def step(self, handles: Sequence[HandleT]) -> list[Step]:
        """Advance each request by one block; if it raises, none of them is stepped again."""

    def close(self, handle: HandleT) -> None:
        """Free what a request holds, ended or not; it is not stepped again."""

    def warm_up(self) -> None:
        """Generate a short dummy request; raises if generation does not work."""
