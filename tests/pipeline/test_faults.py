"""Errors as pyarrow, operating systems and client libraries raise them; nothing waits here."""

from __future__ import annotations

import errno
import http.client
import io
import os
import socket
import ssl
import subprocess
import sys
import urllib.error
from pathlib import Path
from typing import ClassVar

import httpx
import pyarrow as pa
import pytest
import torch
from tenacity import wait_none

from pipeline import faults
from pipeline.errors import MachineError, OutOfMemoryError
from pipeline.faults import (
    SteadyFile,
    is_device_fault,
    is_out_of_memory,
    is_transient,
    on_device,
    retried,
)


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "BACKOFF", wait_none())


def like(module: str, *names: str, **facts: object) -> Exception:
    """An error of a library that need not be installed: its classes by name, the base first."""
    kind: type = Exception
    for name in names:
        kind = type(name, (kind,), {"__module__": module})
    error = kind(facts.pop("text", "it failed"))
    for key, value in facts.items():
        setattr(error, key, value)
    assert isinstance(error, Exception)
    return error


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


_S3 = "When reading information for key 'a/timeout 503.wav' in bucket 'b': AWS Error "

TRANSIENT = [
    *(OSError(getattr(errno, name), "said") for name in ["EIO", "ESTALE", "EMFILE", "ENFILE"]),
    *(
        OSError(getattr(errno, name), "said")
        for name in ["ENOTCONN", "ENODEV", "ETIMEDOUT", "EBUSY"]
    ),
    OSError(f"{_S3}UNKNOWN (HTTP status 503) during HeadObject operation: No response body."),
    OSError(f"{_S3}SLOW_DOWN during PutObject operation: Please reduce your request rate."),
    OSError(f"{_S3}NETWORK_CONNECTION during GetObject operation: curlCode: 7, Couldn't connect"),
    OSError(f"{_S3}INTERNAL_FAILURE during CompleteMultipartUpload operation: We encountered an"),
    OSError("[Errno 5] Error reading bytes from file. Detail: [errno 5] Input/output error"),
    OSError("google::cloud::Status(UNAVAILABLE: Retry policy exhausted in ReadObject"),
    OSError("Server disconnected"),
    pa.lib.ArrowIOError("curlCode: 28, Timeout was reached"),
    TimeoutError(),
    ConnectionResetError(errno.ECONNRESET, "reset"),
    socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
    ssl.SSLEOFError(8, "EOF occurred in violation of protocol"),
    urllib.error.URLError(socket.gaierror(-3, "Temporary failure in name resolution")),
    urllib.error.HTTPError(
        "http://a/b", 503, "Service Unavailable", http.client.HTTPMessage(), None
    ),
    http.client.IncompleteRead(b"ab", 5),
    http.client.RemoteDisconnected("Remote end closed connection without response"),
    httpx.ConnectTimeout("timed out"),
    httpx.ReadError("broken"),
    httpx.HTTPStatusError(
        "Server error", request=httpx.Request("GET", "http://a"), response=httpx.Response(502)
    ),
    like("aiohttp.client_exceptions", "ClientError", "ServerDisconnectedError"),
    like("aiohttp.client_exceptions", "ClientPayloadError"),
    like("aiohttp.client_exceptions", "ClientResponseError", status=429),
    like("botocore.exceptions", "EndpointConnectionError"),
    like("botocore.exceptions", "ClientError", response={"Error": {"Code": "SlowDown"}}),
    like(
        "botocore.exceptions",
        "ClientError",
        response={"Error": {"Code": "503"}, "ResponseMetadata": {"HTTPStatusCode": 503}},
    ),
    like("azure.core.exceptions", "HttpResponseError", status_code=503),
    like("gcsfs.retry", "HttpError", code=502),
    caused(OSError("could not read"), like("botocore.exceptions", "ReadTimeoutError")),
    MachineError("storage"),
]
PERMANENT = [
    FileNotFoundError(errno.ENOENT, "no such file"),
    PermissionError(errno.EACCES, "denied"),
    IsADirectoryError(errno.EISDIR, "a directory"),
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.ENAMETOOLONG, "File name too long"),
    OSError(f"{_S3}ACCESS_DENIED during GetObject operation: Access Denied"),
    OSError(f"{_S3}NO_SUCH_BUCKET (HTTP status 404) during HeadObject operation"),
    OSError("not a table: Not an Arrow file"),
    ssl.SSLCertVerificationError(1, "certificate verify failed: timed out"),
    urllib.error.HTTPError("http://a/b", 403, "Forbidden", http.client.HTTPMessage(), None),
    httpx.UnsupportedProtocol("Request URL is missing a protocol"),
    like("aiohttp.client_exceptions", "ClientResponseError", status=404),
    like(
        "botocore.exceptions",
        "ClientError",
        response={"Error": {"Code": "NoSuchKey"}, "ResponseMetadata": {"HTTPStatusCode": 404}},
    ),
    ValueError("connection reset"),
    RuntimeError("timed out"),
    KeyError("status"),
    pa.ArrowInvalid("Parquet magic bytes not found"),
]


@pytest.mark.parametrize("error", TRANSIENT, ids=repr)
def test_faults_of_storage_and_network_are_transient(error: Exception) -> None:
    assert is_transient(error)


@pytest.mark.parametrize("error", PERMANENT, ids=repr)
def test_permanent_errors_are_not_transient(error: Exception) -> None:
    assert not is_transient(error)


MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("HIP out of memory. Tried to allocate 2.00 GiB"),
    MemoryError(),
]
DEVICE = [
    torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("CUDA error: device-side assert triggered"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    RuntimeError("CUDA error: uncorrectable ECC error encountered"),
    RuntimeError("CUDA driver initialization failed, you might not have a CUDA gpu."),
    RuntimeError("NCCL error in: ProcessGroupNCCL.cpp"),
]
INPUT = [
    RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"),
    RuntimeError("Expected all tensors to be on the same device, found cuda:0 and cpu!"),
    ValueError("out of memory"),
]


@pytest.mark.parametrize("error", MEMORY, ids=repr)
def test_exhausted_memory_is_distinguished_from_other_errors(error: Exception) -> None:
    assert is_out_of_memory(error)
    assert is_device_fault(error)


@pytest.mark.parametrize("error", DEVICE, ids=repr)
def test_a_broken_accelerator_is_distinguished_from_bad_input(error: Exception) -> None:
    assert is_device_fault(error)
    assert not is_out_of_memory(error)


@pytest.mark.parametrize("error", INPUT, ids=repr)
def test_bad_input_is_no_fault_of_a_device(error: Exception) -> None:
    assert not is_device_fault(error)


class Failing:
    """A call that raises the given errors in turn, and then returns."""

    def __init__(self, *errors: Exception) -> None:
        self.errors, self.calls = list(errors), 0

    def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


def test_a_call_is_repeated_until_it_succeeds(caplog: pytest.LogCaptureFixture) -> None:
    call = Failing(OSError(errno.EIO, "Input/output error"), TimeoutError("slow"))
    assert retried(call, "read a.wav") == "done"
    assert call.calls == 3
    assert "read a.wav, attempt 1 of 6" in caplog.text


def test_a_fault_that_stays_is_no_oserror_and_names_what_was_done() -> None:
    call = Failing(*[OSError(errno.ESTALE, "Stale file handle")] * 9)
    with pytest.raises(MachineError, match=r"read a\.wav: .*Stale file handle \(6 attempts\)"):
        retried(call, "read a.wav")
    assert call.calls == faults.ATTEMPTS
    assert not issubclass(MachineError, OSError)


@pytest.mark.parametrize("error", [FileNotFoundError("x"), ValueError("x"), KeyError("x")])
def test_other_errors_come_through_at_once(error: Exception) -> None:
    call = Failing(error)
    with pytest.raises(type(error)):
        retried(call, "read")
    assert call.calls == 1


def test_a_fault_of_an_inner_call_is_not_repeated_by_the_outer_one() -> None:
    call = Failing(*[MachineError("inner: gave up")] * 9)
    with pytest.raises(MachineError, match=r"^inner: gave up$"):
        retried(call, "outer")
    assert call.calls == 1


def test_a_computation_runs_once_more_when_memory_ran_out() -> None:
    call = Failing(torch.OutOfMemoryError("CUDA out of memory"))
    assert on_device(call, "encode") == "done"
    call = Failing(*[torch.OutOfMemoryError("CUDA out of memory")] * 2)
    with pytest.raises(OutOfMemoryError, match="encode: CUDA out of memory"):
        on_device(call, "encode")


def test_a_broken_device_is_not_asked_again_and_bad_input_comes_through() -> None:
    call = Failing(torch.AcceleratorError("CUDA error: unspecified launch failure"))
    with pytest.raises(MachineError, match="encode: CUDA error"):
        on_device(call, "encode")
    assert call.calls == 1
    with pytest.raises(RuntimeError, match="shape"):
        on_device(Failing(RuntimeError("bad shape")), "encode")


class Flaky(io.BytesIO):
    """A file whose reads fail or end early as planned."""

    plan: ClassVar[list[Exception | None]] = []

    def read(self, size: int | None = -1) -> bytes:
        step = self.plan.pop(0) if self.plan else None
        if isinstance(step, Exception):
            raise step
        return super().read(size)


@pytest.fixture
def flaky(monkeypatch: pytest.MonkeyPatch) -> type[Flaky]:
    monkeypatch.setattr(Flaky, "plan", [])
    return Flaky


PAYLOAD = bytes(range(256)) * 64
EIO = OSError(errno.EIO, "Input/output error")


def test_a_file_reads_on_where_a_fault_stopped_it(flaky: type[Flaky]) -> None:
    opened = []

    def opener() -> Flaky:
        opened.append(1)
        return flaky(PAYLOAD)

    flaky.plan[:] = [None, EIO, EIO, None, EIO]
    stream = io.BufferedReader(SteadyFile(opener, "read"), 1000)
    assert stream.read(1500) + stream.read() == PAYLOAD
    assert len(opened) == 4
    assert stream.seek(-6, os.SEEK_END) == len(PAYLOAD) - 6
    assert stream.read(100) == PAYLOAD[-6:]


def test_a_file_that_ends_before_its_size_is_read_again(flaky: type[Flaky]) -> None:
    opened = []

    def opener() -> Flaky:
        opened.append(1)
        return flaky(PAYLOAD)

    steady = SteadyFile(opener, "read")
    assert steady._file is not None
    steady._file.truncate(10)  # type: ignore[attr-defined]
    assert io.BufferedReader(steady).read() == PAYLOAD
    assert len(opened) == 2


def test_a_fault_that_stays_ends_the_file_for_a_decoder_and_is_kept(flaky: type[Flaky]) -> None:
    steady = SteadyFile(lambda: flaky(PAYLOAD), "read", ends_at_fault=True)
    flaky.plan[:] = [None, *[EIO] * 20]
    assert steady.read(100) == PAYLOAD[:100]
    assert steady.read(100) == b""
    assert isinstance(steady.fault, MachineError)
    other = SteadyFile(lambda: flaky(PAYLOAD), "read")
    with pytest.raises(MachineError, match="Input/output error"):
        other.read(100)


def test_a_file_that_cannot_be_opened_says_so() -> None:
    def missing() -> Flaky:
        raise FileNotFoundError("a.wav")

    with pytest.raises(FileNotFoundError):
        SteadyFile(missing, "read")


def test_torch_is_not_imported_to_classify_errors() -> None:
    code = "import sys, pipeline.faults; sys.exit('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0
    )
