"""Checkpoints of a run while it trains: when one is due, and the one that is being written.

A checkpoint is written from a copy of the state by a thread, while training goes on. Every worker
writes its files, and the first one writes the marker when all are there.

Besides the interval of steps, a checkpoint is due on request, by the clock and when an eviction is
announced. The first worker looks at the file and the clock; what it finds is summed over the
workers after every step, so that all of them save after the same one.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from model.bundle.weights import digest, save_weights
from pipeline.errors import DiskFullError, NonFiniteError
from pipeline.storage import COMPLETE, Folder, json_bytes, sha256
from pipeline.training.checkpoint_store import STATE, CheckpointStore, disk_full_noted
from pipeline.training.place import Place
from pipeline.training.rundir import CHECKPOINTS, STOP_REQUEST
from pipeline.training.settings import SaveSettings

_POLL_S = 1.0
_NOTICE_POLL_S = 5.0
"""Ray looks for evictions this often itself."""
_UPLOAD_BYTES = 1 << 24

Files = Mapping[str, Mapping[str, Tensor]]
"""Tensors in CPU memory that nothing else changes, by file and name."""


class Saving:
    """The checkpoints of a run while it trains; every worker calls each method at the same step.

    Used as a context: where the block ends, or fails on all workers, the checkpoint under way is
    completed. It is left without its marker where the block fails otherwise.

    Args:
        run: Run directory.
        place: Place of this worker.
        settings: When checkpoints are due.
        num_steps: Steps of the run; the last one has a checkpoint.
        contents: Returns the files of this worker and the plain values of a checkpoint.
        completed: Called with the step of a checkpoint that was completed, before it is reported.
        clock: Current time, seconds.

    Attributes:
        store: Checkpoints of the run.
    """

    def __init__(
        self,
        run: Folder,
        place: Place,
        settings: SaveSettings,
        num_steps: int,
        *,
        contents: Callable[[], tuple[Files, Mapping[str, Any]]],
        completed: Callable[[int], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store = CheckpointStore(run.child(CHECKPOINTS))
        self._run, self._place, self._settings = run, place, settings
        self._num_steps, self._clock = num_steps, clock
        self._contents, self._completed = contents, completed
        self._saved_s = clock()
        self._polled_s = self._looked_s = float("-inf")
        self._has_notice = False
        self._pending: PendingCheckpoint | None = None

    def after_step(self, step: int) -> bool:
        """Begin or complete a checkpoint where it is due; returns whether a stop was requested.

        Raises:
            DiskFullError: On every worker, if there is no room for a checkpoint.
        """
        has_written = self._pending is not None and self._pending.is_written()
        own = [*(self._requests() if self._place.is_first else (False,) * 3), has_written]
        agreed = self._place.sum(torch.tensor(own, dtype=torch.float64)).tolist()
        is_stopping, is_late, is_looking = (value > 0 for value in agreed[:3])
        is_announced = is_looking and self._is_news(self._place.is_preempted())
        is_due = step % self._settings.every == 0 or step == self._num_steps
        if is_due or is_stopping or is_late or is_announced:
            self.begin(step)
        elif agreed[3] == self._place.world_size:
            self.finish()
        return is_stopping

    def begin(self, step: int) -> None:
        """Copy the state and write it while training goes on; the one before is finished first.

        Raises:
            DiskFullError: On every worker, if there was no room for the one before.
        """
        self.finish()
        files, values = self._contents()
        self._pending = PendingCheckpoint(self.store, self._place, step, files, values)
        self._saved_s = self._clock()

    def finish(self) -> None:
        """Complete and report the checkpoint that is under way, if there is one.

        Raises:
            DiskFullError: On every worker, if there is no room for it.
        """
        if self._pending is None:
            return
        pending, self._pending = self._pending, None
        pending.complete()
        self._completed(pending.step)
        self._place.report({"step": pending.step}, self.store.at(pending.step))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None or issubclass(kind, NonFiniteError):
                self.finish()
        finally:
            if self._pending is not None:
                self._pending.join()

    def _requests(self) -> tuple[bool, bool, bool]:
        """Whether a stop was requested, the clock asks for a checkpoint, and it is time to look for
        an eviction."""
        now = self._clock()
        is_stopping = False
        if now - self._polled_s >= _POLL_S:
            self._polled_s = now
            is_stopping = self._run.exists(STOP_REQUEST)
        every_s = 60 * self._settings.every_minutes
        is_late = every_s > 0 and now - self._saved_s >= every_s
        is_looking = now - self._looked_s >= _NOTICE_POLL_S
        if is_looking:
            self._looked_s = now
        return is_stopping, is_late, is_looking

    def _is_news(self, has_notice: bool) -> bool:
        """Whether an eviction is announced now; one notice asks for one checkpoint."""
        is_news = has_notice and not self._has_notice
        self._has_notice = has_notice
        return is_news


class PendingCheckpoint:
    """A checkpoint whose files are being written by a thread of every worker.

    Args:
        store: Checkpoints of the run.
        place: Place of this worker.
        step: Number of steps taken.
        files: Files of this worker.
        values: Plain values for `trainer_state.json`; those of the first worker count.

    Attributes:
        step: As given.
    """

    def __init__(
        self,
        store: CheckpointStore,
        place: Place,
        step: int,
        files: Files,
        values: Mapping[str, Any],
    ) -> None:
        self.step = step
        self._store, self._place, self._folder = store, place, store.at(step)
        self._state = json_bytes({**values, "step": step})
        thread = ThreadPoolExecutor(1, "checkpoint")
        self._written = thread.submit(self._write_all, files)
        thread.shutdown(wait=False)

    def is_written(self) -> bool:
        """Whether the thread of this worker has ended, with success or without."""
        return self._written.done()

    def join(self) -> None:
        """Wait for the thread of this worker alone; the checkpoint stays without its marker."""
        wait([self._written])

    def complete(self) -> None:
        """Wait for the files of all workers and write the marker; every worker calls this.

        Raises:
            DiskFullError: On every worker, if one of them found the disk full. What was written of
                this checkpoint is removed; the earlier ones stay.
        """
        gathered = self._place.gather(self._written.result())
        full = [part[0] for part in gathered if isinstance(part, list)]
        problem = ""
        if self._place.is_first:
            if not full:
                with disk_full_noted() as full:
                    self._write_marker(gathered)
            problem = self._store.without_room(self.step, full[0]) if full else ""
        if problem := self._place.from_first(problem):
            raise DiskFullError(problem)

    def _write_all(self, files: Files) -> dict[str, Any] | list[str]:
        """Write the files of this worker; returns their marker entries, or why a disk is full."""
        with disk_full_noted() as problems:
            if self._place.is_first:
                self._folder.delete(COMPLETE)  # of a damaged checkpoint of the same step
            entries = {name: write_tensors(self._folder, name, own) for name, own in files.items()}
        return problems or entries

    def _write_marker(self, parts: list[dict[str, Any]]) -> None:
        every = {name: entry for part in parts for name, entry in part.items()}
        every[STATE] = {"sha256": sha256(self._state), "size_bytes": len(self._state)}
        self._folder.write_bytes(STATE, self._state)
        self._folder.write_json(COMPLETE, {"files": every})


def write_tensors(folder: Folder, name: str, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Write one safetensors file of copied tensors; returns its entry in a marker."""
    with contextlib.ExitStack() as stack:
        if folder.is_local:
            Path(folder.path).mkdir(parents=True, exist_ok=True)
            path = Path(folder.path) / name
        else:
            path = Path(stack.enter_context(tempfile.TemporaryDirectory())) / name
        save_weights(path, tensors, are_copies=True)
        entry = {"sha256": digest(path), "size_bytes": path.stat().st_size}
        if not folder.is_local:
            folder.filesystem.create_dir(folder.path, recursive=True)
            with (
                path.open("rb") as source,
                folder.filesystem.open_output_stream(folder.join(name)) as sink,
            ):
                while chunk := source.read(_UPLOAD_BYTES):
                    sink.write(chunk)
    return entry
