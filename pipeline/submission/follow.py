"""Follow the log of a job, across lost connections, until the job has ended."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

import aiohttp

from pipeline.errors import ClusterError
from pipeline.progress import ProgressReader
from pipeline.submission.client import ENDED, JobServer, persistent, state_of

logger = logging.getLogger(__name__)

SILENCE_S = 60.0
"""Silence after which the connection is renewed, seconds: a dead one looks like a quiet job."""
PATIENCE_S = 600.0
"""Time after which a connection that cannot be renewed is an error, seconds."""

_LAST_ATTEMPTS = 3
"""Attempts to read the log of an ended job to its end: it may be gone with its node."""


def follow(
    server: JobServer,
    job_id: str,
    show: Callable[[str], None],
    *,
    silence_s: float = SILENCE_S,
    patience_s: float = PATIENCE_S,
    retry_s: float = 1.0,
) -> Any:
    """Show every line of a job's log once, from the beginning, and wait for the end of the job.

    A lost connection is renewed; the job server then sends the log from its beginning, and what
    was shown before is dropped.

    Args:
        server: Job server.
        job_id: Id of the job.
        show: Called with every line, without its line break.
        silence_s: Time without a line after which the connection is renewed, seconds.
        patience_s: Time after which a connection that cannot be renewed is an error, seconds.
        retry_s: Time before a connection is renewed, seconds.

    Returns:
        Ray's `JobDetails` of the ended job.

    Raises:
        ClusterError: If the server does not answer for `patience_s`, or does not know the job.
    """
    log = _Log(show)
    attempts_left = _LAST_ATTEMPTS
    while True:
        asyncio.run(_tail(server, job_id, log, silence_s))
        job = persistent(lambda: server.get_job_info(job_id), patience_s=patience_s)
        if state_of(job) in ENDED:
            attempts_left -= 1
            if not log.is_cut or not attempts_left:
                log.finish()
                return job
        time.sleep(retry_s)


async def _tail(server: JobServer, job_id: str, log: _Log, silence_s: float) -> None:
    """Show the log until the job ends, the connection is lost, or nothing comes for a while."""
    log.restart()
    parts = server.tail_job_logs(job_id)
    while True:
        try:
            async with asyncio.timeout(silence_s):
                part = await anext(parts)
        except StopAsyncIteration:
            log.is_cut = False
            return
        # What Ray and the HTTP client below it raise for a lost connection; `follow` asks again.
        except (RuntimeError, OSError, TimeoutError, aiohttp.ClientError) as error:
            logger.debug("the log breaks off: %r", error)
            return
        log.add(part)


class _Log:
    """Lines of a log that may be sent several times from its beginning."""

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show = show
        self._num_seen = 0
        self._at = 0
        self._rest = ""
        self.is_cut = True

    def restart(self) -> None:
        """Note that the log is sent from its beginning again."""
        self._at, self.is_cut = 0, True

    def add(self, part: str) -> None:
        """Add the next characters of the log."""
        fresh = part[max(0, self._num_seen - self._at) :]
        self._at += len(part)
        self._num_seen = max(self._num_seen, self._at)
        *lines, self._rest = (self._rest + fresh).split("\n")
        for line in lines:
            self._show(line)

    def finish(self) -> None:
        """Show a last line that has no line break."""
        if self._rest:
            self._show(self._rest)
        self._rest = ""


class ProgressDisplay:
    """One line that is rewritten on a terminal; elsewhere a line for each change.

    Args:
        stream: Text stream to write to; None is stderr.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._is_terminal = self._stream.isatty()
        self._width = 0
        self._last = ""
        self.reader = ProgressReader()

    def __call__(self, line: str) -> None:
        """Take a line of the log; warnings and errors are shown as they are."""
        if self.reader.read(line):
            self._write(str(self.reader.progress or line))
        elif " WARNING " in line or " ERROR " in line or line.startswith("error: "):
            self.end_line()
            print(line, file=self._stream, flush=True)

    def end_line(self) -> None:
        """End the rewritten line, so that other output starts on a new one."""
        if self._width:
            print(file=self._stream, flush=True)
        self._width = 0

    def _write(self, text: str) -> None:
        if text == self._last:
            return
        self._last = text
        if self._is_terminal:
            print(f"\r{text:<{self._width}}", end="", file=self._stream, flush=True)
            self._width = len(text)
        else:
            print(text, file=self._stream, flush=True)


def last_lines(server: JobServer, job_id: str, number: int) -> list[str]:
    """The last lines of a job's log; none if it cannot be read."""
    try:
        log = persistent(lambda: server.get_job_logs(job_id), patience_s=0.0)
    except ClusterError:
        return []
    return log.splitlines()[-number:]
