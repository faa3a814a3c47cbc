"""The lease of a stage's directory: one driver at a time, which shows by a heartbeat that it lives.

A lease of this machine is judged by its process, one of another machine by whether its heartbeat
moves; clocks are not compared. Of two drivers that start within the same moment the one that
creates the file goes on. Where storage has no conditional writes both write, and the one whose
lease is found a moment later goes on; see `pipeline/conditional_writes.py`.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
import posixpath
import socket
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from pipeline.conditional_writes import create_file
from pipeline.errors import IncompleteError, InUseError, MachineError
from pipeline.storage import Folder, json_bytes

logger = logging.getLogger(__name__)

LEASE = "_lease.json"
"""Who writes the directory at present; gone when nobody does."""
BEAT_S = 10.0
"""Between two heartbeats, seconds."""
STALE_S = 45.0
"""A lease of another machine whose heartbeat stands still for this long is taken over, seconds."""
_SETTLE_S = 0.3
_POLL_S = 1.0


class Lease:
    """Holds a directory for the duration of a `with` block.

    Args:
        folder: The directory; it need not exist.
        job: Who holds it, for the message that refuses others.

    Raises:
        InUseError: On entering, if another driver holds it.
    """

    def __init__(self, folder: Folder, job: str) -> None:
        self._folder = folder
        self._state: dict[str, Any] = {
            "run_id": uuid.uuid4().hex,
            "job": job,
            "host": socket.gethostname(),
            "machine": _machine(),
            "pid": os.getpid(),
            "started": _start_of(os.getpid()),
            "since": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "beat": 0,
        }
        self._is_lost = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep_alive, name="lease", daemon=True)

    def __enter__(self) -> Lease:
        check_free(self._folder)
        self._claim()
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ended.set()
        self._thread.join()
        with contextlib.suppress(MachineError):  # what ended the block matters more
            if not self._is_lost and self._is_ours():
                self._folder.delete(LEASE)

    def check(self) -> None:
        """Stop a driver that another one has taken for dead.

        Raises:
            InUseError: If the lease is another driver's by now.
        """
        if self._is_lost:
            raise InUseError(
                f"another run took over {self._folder.uri}, as this one showed no life for "
                f"{STALE_S:g} s; this run stops, what it has done is kept"
            )

    def _claim(self) -> None:
        """Write the lease; where two start at once, one of them."""
        is_created = create_file(self._folder, LEASE, json_bytes(self._state))
        if is_created and self._folder.is_local:
            return
        if not is_created and not self._is_ours():  # a retried request may find its own file
            check_free(self._folder)
            self._folder.write_json(LEASE, self._state)
        time.sleep(_SETTLE_S)
        if not self._is_ours():
            check_free(self._folder)
            raise InUseError(f"another run has just started to write {self._folder.uri}")

    def _is_ours(self) -> bool:
        found = _read(self._folder)
        return found is not None and found["run_id"] == self._state["run_id"]

    def _keep_alive(self) -> None:
        while not self._ended.wait(BEAT_S):
            try:
                if not self._is_ours():
                    self._is_lost = True
                    logger.error("the lease of %s is another run's", self._folder.uri)
                    return
                self._state["beat"] += 1
                self._folder.write_json(LEASE, self._state)
            except (MachineError, OSError) as error:
                logger.warning("no heartbeat in %s: %s", self._folder.uri, error)


def check_free(folder: Folder) -> None:
    """Refuse a directory that a living driver holds; the lease of a dead one is removed.

    Raises:
        InUseError: With who holds it and since when.
    """
    found = _read(folder)
    if found is None:
        return
    if not _is_alive(folder, found):
        logger.info("%s: process %s on %s is gone", folder.uri, found["pid"], found["host"])
        if _read(folder) == found:
            folder.delete(LEASE)
        return
    raise InUseError(
        f"{folder.uri} is being written by {found['job']}, process {found['pid']} on "
        f"{found['host']}, since {found['since']}; wait for it or stop it (a run that is gone is "
        f"replaced {STALE_S:g} s after its last heartbeat)"
    )


def _read(folder: Folder) -> dict[str, Any] | None:
    try:
        found = folder.read_json(LEASE)
    except (FileNotFoundError, IncompleteError):
        return None
    is_lease = isinstance(found, dict) and {"run_id", "machine", "pid", "started"} <= found.keys()
    return found if is_lease else None


def _is_alive(folder: Folder, found: dict[str, Any]) -> bool:
    if found["machine"] == _machine():
        return _start_of(found["pid"]) == found["started"] is not None
    logger.info(
        "%s: looking for up to %g s whether process %d on %s still writes it",
        *(folder.uri, STALE_S, found["pid"], found["host"]),
    )
    until = time.monotonic() + STALE_S
    while time.monotonic() < until:
        time.sleep(_POLL_S)
        now = _read(folder)
        if now != found:
            return now is not None
    return False


def _machine() -> str:
    """This machine, its boot, and the space that its process ids live in."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    spot = Path("/proc/self/ns/pid")
    known = boot.read_text().strip() if boot.exists() else ""
    space = os.readlink(spot) if spot.exists() else ""
    return posixpath.join(socket.gethostname(), known, space)


def _start_of(pid: int) -> str | None:
    """When a living process started, as the system counts; None if there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return None
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            pass
        return "alive"
    return None if fields[0] in "ZX" else fields[19]
