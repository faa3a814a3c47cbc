"""Faults of the machine: which errors are transient, and retries with exponential backoff.

A fault of storage, network or accelerator says nothing about the data that was being read. Such a
call is repeated; if it keeps failing it raises `MachineError`, which no handler of bad files
catches.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import gc
import io
import logging
import os
import re
import socket
from collections.abc import Callable
from typing import BinaryIO, ParamSpec, TypeVar, cast

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt
from tenacity.wait import wait_random_exponential

from pipeline.errors import DeviceError, MachineError, OutOfMemoryError

logger = logging.getLogger(__name__)

Given = ParamSpec("Given")
Result = TypeVar("Result")

ATTEMPTS = 6
"""Calls before an operation on a file gives up."""
BACKOFF = wait_random_exponential(multiplier=0.25, max=20)
"""Waits between them, seconds: random, so that workers do not return all at once."""

_ERRNO_NAME = re.compile(
    "EIO|EREMOTEIO|ESTALE|ENODEV|ENXIO|E[MN]FILE|ENOMEM|EAGAIN|EBUSY|EINTR|ENOLCK|ENOLINK|EPIPE"
    "|ETIME|ETIMEDOUT|ECOMM|EPROTO|ECONN.*|ENET.*|EHOST.*|ENOTCONN|ESHUTDOWN|ENOBUFS"
)
"""A lost mount answers ENOTCONN, ESTALE or ENODEV. A full disk (ENOSPC) does not get better."""
_TRANSIENT_ERRNO = frozenset(
    number for number, name in errno.errorcode.items() if _ERRNO_NAME.fullmatch(name)
)
_ERRNO = re.compile(r"\[errno (\d+)\]", re.IGNORECASE)
_TRANSIENT_STATUS = re.compile("408|425|429|500|502|503|504|507|509|52[0-4]")
_STATUS = re.compile(
    r"HTTP(?:/[\d.]+)?(?: response)?(?: status)?(?: code)?[ :=]+(\d{3})\b", re.IGNORECASE
)
_AWS = re.compile(r"AWS Error ([A-Z_]+)")
_AWS_TRANSIENT = re.compile(
    "INTERNAL_(?:FAILURE|ERROR)|SERVICE_UNAVAILABLE|THROTTLING|SLOW_DOWN|REQUEST_TIMEOUT"
    "|REQUEST_EXPIRED|NETWORK_CONNECTION"
)
_BOTO_TRANSIENT = re.compile(
    "SlowDown|Throttl.*|RequestTimeout|RequestLimitExceeded|Internal(?:Error|Failure)"
    "|ServiceUnavailable"
)
_QUOTED = re.compile(r"'[^']*'")
_TEXT = re.compile(
    r"curlCode|time[d ]{0,2}[- ]?out|deadline.?exceeded"
    r"|connection (?:was )?(?:reset|refused|closed|aborted|error|lost)"
    r"|(?:could not|couldn't|cannot|failed to) (?:connect|resolve|establish)"
    r"|temporar(?:y|ily)|unavailable|bad gateway|slow ?down|server ?(?:is )?busy|throttl"
    r"|too many requests|too many open files|reduce your request rate|resource.?exhausted"
    r"|internal ?(?:server )?error|internal ?failure|backend ?error|broken pipe"
    r"|network is (?:unreachable|down)|no route to host|disconnected|endpoint is not connected"
    r"|stale (?:nfs )?file handle|input/output error|unexpected eof|eof occurred|handshake",
    re.IGNORECASE,
)
_CLIENTS = re.compile(
    "adlfs|aiobotocore|aiohttp|azure|boto3|botocore|fsspec|gcsfs|google|grpc|http|httpcore|httpx"
    "|mlflow|paramiko|pyarrow|requests|s3fs|s3transfer|smbprotocol|sqlalchemy|ssl|urllib|urllib3"
)
_CLASS = re.compile(
    r"Timeout|Connect|Network|Disconnected|Transport|RemoteProtocol|ProtocolError|Payload"
    r"|Incomplete|ReadError|WriteError|Streaming|SlowDown|Unavailable|Throttl|TooManyRequests"
    r"|InternalServerError|BadGateway|ChunkedEncoding|HTTPClientError|SSLError|SSLEOF|RetryError"
)
_PERMANENT_CLASS = re.compile(r"Unsupported|LocalProtocol|InvalidURL|Cert|NotFound|Forbidden")
_MEMORY = re.compile(
    r"out of memory|can(?:'t|not) allocate memory|ALLOC_FAILED|bad_alloc", re.IGNORECASE
)
_DEVICE = re.compile(
    r"CUDA(?: error|_ERROR| driver| runtime| kernel)|cuDNN|(?:CUDNN|CUBLAS|CUFFT|CUSOLVER)_"
    r"|NCCL|NVRTC|NVML|HIP (?:error|out)|HIPBLAS|MIOpen|MPS backend|device-side assert|ECC error"
    r"|no kernel image|[Ii]llegal memory access|device lost|GPU is lost"
)


def is_transient(error: BaseException) -> bool:
    """Whether the same call may succeed later: the error is one of storage or network.

    Decided in this order by the type, an HTTP status that the error carries, `errno`, and the text
    (pyarrow's S3 errors are plain `OSError` with a sentence); a wrapped error counts as its cause.
    """
    if isinstance(error, MachineError):
        return True
    if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError | FileExistsError):
        return False
    status = _status(error)
    if status is not None:
        return _TRANSIENT_STATUS.fullmatch(str(status)) is not None
    if isinstance(error, TimeoutError | ConnectionError | socket.gaierror):
        return True
    if _is_client_fault(error):
        return True
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _TRANSIENT_ERRNO
    if isinstance(error, OSError) and _says_transient(str(error)):
        return True
    return error.__cause__ is not None and is_transient(error.__cause__)


def _status(error: BaseException) -> int | None:
    """The HTTP status of an error of a client library, or in the sentence of one of pyarrow."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore
        facts, said = response.get("ResponseMetadata", {}), response.get("Error", {})
        if _BOTO_TRANSIENT.fullmatch(said.get("Code", "")):
            return 503
        return cast("int | None", facts.get("HTTPStatusCode"))
    for holder in (error, response):
        for name in ("status_code", "status", "code", "http_status"):
            value = getattr(holder, name, None)
            if isinstance(value, int) and 100 <= value < 600:
                return int(value)
    found = _STATUS.search(str(error)) if isinstance(error, OSError) else None
    return int(found[1]) if found else None


def _is_client_fault(error: BaseException) -> bool:
    names = [kind.__name__ for kind in type(error).__mro__ if _is_of_client(kind)]
    return not any(_PERMANENT_CLASS.search(name) for name in names) and any(
        _CLASS.search(name) for name in names
    )


def is_of_service(error: BaseException) -> bool:
    """Whether an error comes from the operating system or the client library of a service.

    Any other one, such as a `TypeError`, is more likely a mistake of this program: where an error
    is only logged, it belongs into the log with its traceback.
    """
    return isinstance(error, OSError | MachineError) or any(map(_is_of_client, type(error).__mro__))


def _is_of_client(kind: type) -> bool:
    return _CLIENTS.fullmatch(kind.__module__.partition(".")[0]) is not None


def _says_transient(text: str) -> bool:
    code = _AWS.search(text)
    if code and code[1] != "UNKNOWN":
        return _AWS_TRANSIENT.fullmatch(code[1]) is not None
    number = _ERRNO.search(text)
    if number:
        return int(number[1]) in _TRANSIENT_ERRNO
    return _TEXT.search(_QUOTED.sub("", text)) is not None


def retried(call: Callable[[], Result], what: str) -> Result:
    """The result of a call that is repeated while its errors are transient.

    Raises:
        MachineError: If the last attempt failed for such an error as well; with `what` and why.
    """
    try:
        return call()  # without tenacity, whose bookkeeping takes longer than opening a file
    except Exception as error:  # raised again, now or as the first attempt
        if not _is_worth_another(error):
            raise
        first = error
    try:
        return _attempts(what)(_after(first, call))
    except Exception as error:  # raised again, as it is or as the cause
        if _is_worth_another(error):
            raise MachineError(f"{what}: {error} ({ATTEMPTS} attempts)") from error
        raise


def _attempts(what: str) -> Retrying:
    def note(state: RetryCallState) -> None:
        """Log a failed attempt."""
        error = state.outcome.exception() if state.outcome else None
        logger.warning("%s, attempt %d of %d: %s", what, state.attempt_number, ATTEMPTS, error)

    return Retrying(
        retry=retry_if_exception(_is_worth_another),
        wait=BACKOFF,
        stop=stop_after_attempt(ATTEMPTS),
        before_sleep=note,
        reraise=True,
    )


def _after(first: Exception, call: Callable[[], Result]) -> Callable[[], Result]:
    """The call, except that its first attempt has been made and failed."""
    failures = [first]

    def attempt() -> Result:
        if failures:
            raise failures.pop()
        return call()

    return attempt


def _is_worth_another(error: BaseException) -> bool:
    return not isinstance(error, MachineError) and is_transient(error)


def retries(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """Decorate a function on files so that every call goes through `retried`."""

    @functools.wraps(function)
    def call(*args: Given.args, **kwargs: Given.kwargs) -> Result:
        """The function, retried."""
        names = [str(arg) for arg in (getattr(args[0], "uri", args[0]), *args[1:2])]
        what = f"{function.__name__} {'/'.join(name[:200] for name in names)}"
        return retried(lambda: function(*args, **kwargs), what)

    return call


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory of the accelerator or the machine was exhausted."""
    if isinstance(error, MemoryError) or _is_kind(error, "OutOfMemoryError"):
        return True
    return isinstance(error, RuntimeError) and _MEMORY.search(str(error)) is not None


def is_device_fault(error: BaseException) -> bool:
    """Whether an error of a computation is one of the accelerator or of memory, not of its input.

    After most of them the process can use the accelerator no more.
    """
    if is_out_of_memory(error) or _is_kind(error, "AcceleratorError"):
        return True
    return isinstance(error, RuntimeError) and _DEVICE.search(str(error)) is not None


def _is_kind(error: BaseException, name: str) -> bool:
    """Whether an error is of a class of torch, told by its name: torch may not be imported yet."""
    return any(kind.__name__ == name for kind in type(error).__mro__)


def on_device(call: Callable[[], Result], what: str) -> Result:
    """The result of a computation that is repeated once, after freeing memory, if that ran out.

    Raises:
        OutOfMemoryError: If memory runs out again.
        DeviceError: If the accelerator fails otherwise.
    """
    for is_last in (False, True):
        try:
            return call()
        except (RuntimeError, MemoryError) as error:
            if not is_device_fault(error):
                raise
            is_full = is_out_of_memory(error)
            said = " ".join(str(error).split())[:300] or type(error).__name__
            if is_last or not is_full:
                kind = OutOfMemoryError if is_full else DeviceError
                raise kind(f"{what}: {said}") from error
            logger.warning("%s: %s; once more with memory freed", what, said)
        _free_memory()
    raise AssertionError("the second round returns or raises")


def _free_memory() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class SteadyFile(io.RawIOBase):
    """A readable file that is opened again after a transient error and read from where it was.

    Args:
        opener: Opens the file at its beginning.
        what: Name of the file in errors.
        ends_at_fault: Whether a fault that stays looks like the end of the file to the reader, who
            must ask `fault` afterwards: a decoder takes what is raised for a damaged file.
    """

    def __init__(
        self, opener: Callable[[], BinaryIO], what: str, *, ends_at_fault: bool = False
    ) -> None:
        self._opener, self._what, self._ends_at_fault = opener, what, ends_at_fault
        self._file: BinaryIO | None = None
        self._position = 0
        self.fault: MachineError | None = None
        self._size = retried(self._open, what)

    def _open(self) -> int:
        self._close()
        self._file = self._opener()
        self._size = self._file.seek(0, os.SEEK_END)
        return self._size

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):
                file.close()

    def readable(self) -> bool:
        """True, for `io.RawIOBase`."""
        return True

    def seekable(self) -> bool:
        """True, for `io.RawIOBase`."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position; nothing is read yet."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise OSError(errno.EINVAL, "a position before the beginning of the file")
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        """The position."""
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Read some bytes."""
        payload = self._steadily(len(buffer))
        buffer[: len(payload)] = payload
        return len(payload)

    def readall(self) -> bytes:
        """Read the rest, in one request."""
        parts = []
        while part := self._steadily(max(0, self._size - self._position)):
            parts.append(part)
        return b"".join(parts)

    def _steadily(self, size: int) -> bytes:
        if self.fault is None:
            try:
                payload = retried(lambda: self._read(size), self._what)
            except MachineError as error:
                self.fault = error
            else:
                self._position += len(payload)
                return payload
        if self._ends_at_fault:
            return b""
        raise self.fault

    def _read(self, size: int) -> bytes:
        try:
            if self._file is None:
                self._open()
            assert self._file is not None, "it was opened just now"
            self._file.seek(self._position)
            payload = self._file.read(size)
            if size and not payload and self._position < self._size:
                raise OSError(errno.EIO, f"ends at byte {self._position} of {self._size}")
        except OSError:
            self._close()
            raise
        return payload

    def close(self) -> None:
        """Close the file."""
        self._close()
        super().close()
