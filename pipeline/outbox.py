"""Delivery in the background: records wait for a service that is away, and no caller waits."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from pathlib import Path

from pipeline.faults import is_of_service

logger = logging.getLogger(__name__)

_MOST_RECORDS = 10_000
_PAUSE_S = 30.0


class RefusedRecordError(Exception):
    """The service answered that it will never take this record."""


class Outbox:
    """Sends records in their order from one thread, which lives while there are any.

    After a failure nothing is sent for a while. The record that failed is then tried after the
    others, so that one that always fails does not hold them up. A record that is refused is
    dropped with a warning, and so are the oldest ones beyond the limit.

    Args:
        service: Name in the log.
        pause_s: Seconds without an attempt after a failure.
        most_records: Records kept for later.
    """

    def __init__(
        self, service: str, pause_s: float = _PAUSE_S, most_records: int = _MOST_RECORDS
    ) -> None:
        self._service, self._pause_s, self._most_records = service, pause_s, most_records
        self._records: deque[tuple[str, Callable[[], None]]] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._is_hurried = False
        self._spool: Path | None = None
        self._num_kept = 0
        self.is_failing = False
        """Whether the last attempt failed."""

    def post(self, what: str, send: Callable[[], None]) -> None:
        """Send a record soon, or once the service is back; returns at once.

        Args:
            what: Name of the record in a warning.
            send: Raises RefusedRecordError if the record is to be dropped, anything else if it is
                to be tried again.
        """
        with self._changed:
            if len(self._records) >= self._most_records:
                dropped, _ = self._records.popleft()
                logger.warning("%s: too many records wait; %s is lost", self._service, dropped)
            self._records.append((what, send))
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name=f"{self._service} outbox", daemon=True
                )
                self._thread.start()
            self._changed.notify_all()

    def keep(self, path: str | os.PathLike[str]) -> str:
        """Copy a file to where it stays until this outbox is gone; returns the path of the copy."""
        if self._spool is None:
            self._spool = Path(tempfile.mkdtemp(prefix="outbox-"))
            weakref.finalize(self, shutil.rmtree, self._spool, ignore_errors=True)
        self._num_kept += 1
        folder = self._spool / str(self._num_kept)
        folder.mkdir()
        return os.fspath(shutil.copy(path, os.fspath(folder)))

    def flush(self, timeout_s: float) -> int:
        """Wait until all records are sent, or for so long; returns how many are left.

        Records that wait for the end of a pause are tried once more at once.
        """
        with self._changed:
            self._is_hurried = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._records, timeout_s)
            self._is_hurried = False
            return len(self._records)

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._records:
                    self._thread = None
                    return
                what, send = record = self._records[0]
            outcome = self._attempt(what, send)
            with self._changed:
                if self._records and self._records[0] is record:
                    self._records.popleft()
                if outcome:
                    self._records.append(record)
                self._changed.notify_all()
                if outcome:
                    self._pause()

    def _attempt(self, what: str, send: Callable[[], None]) -> bool:
        """Whether a record has to be sent again."""
        try:
            send()
        except RefusedRecordError as error:
            logger.warning("%s did not take %s: %s", self._service, what, error)
        # No list of what client libraries raise is complete, and an error of this thread would end
        # the delivery without a word.
        except Exception as error:
            is_known = is_of_service(error)
            if not self.is_failing or not is_known:
                said = (str(error).splitlines() or [type(error).__name__])[0]
                logger.warning(
                    "%s did not take %s: %s; records wait and are sent once it answers",
                    self._service,
                    what,
                    said,
                    exc_info=None if is_known else error,
                )
            self.is_failing = True
            return True
        if self.is_failing:
            logger.info("%s answers again", self._service)
        self.is_failing = False
        return False

    def _pause(self) -> None:
        """Wait for the pause to end, or for a flush; holds the lock."""
        until = time.monotonic() + self._pause_s
        self._changed.wait_for(lambda: self._is_hurried, timeout=max(0.0, until - time.monotonic()))
