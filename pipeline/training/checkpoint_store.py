"""The checkpoints of a run on disk: which exist, are complete, damaged, or to be removed."""

from __future__ import annotations

import contextlib
import errno
import re
import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from pipeline.errors import DamagedError, DiskFullError, IncompleteError
from pipeline.storage import COMPLETE, Folder, sha256

STATE = "trainer_state.json"
_FULL = ("no space left", "disk quota exceeded")
"""Words by which safetensors, which gives no errno, reports a full disk."""
_NAME = re.compile(r"step_(\d{8,})")


def checkpoint_name(step: int) -> str:
    """Directory of a step's checkpoint."""
    return f"step_{step:08d}"


@dataclass(frozen=True)
class CheckpointStore:
    """The checkpoints of one run.

    Attributes:
        folder: Directory with one folder for each checkpoint.
    """

    folder: Folder

    def at(self, step: int) -> Folder:
        """The directory of a step."""
        return self.folder.child(checkpoint_name(step))

    def steps(self) -> list[int]:
        """Steps with a complete checkpoint, ascending."""
        return [step for step in self._all() if self.is_complete(step)]

    def is_complete(self, step: int) -> bool:
        """Whether the marker exists and every file that it names has the size that it names."""
        folder = self.at(step)
        if not folder.exists(COMPLETE):
            return False
        try:
            files = folder.read_json(COMPLETE)["files"]
            wanted = [int(entry["size_bytes"]) for entry in files.values()]
        except (IncompleteError, KeyError, TypeError, AttributeError, ValueError):
            return False
        infos = folder.filesystem.get_file_info([folder.join(name) for name in files])
        return [info.size for info in infos] == wanted

    def find(self, step: int | None = None) -> int:
        """The newest complete step, or the requested one if it is complete.

        Raises:
            IncompleteError: If there is none, naming those that are complete.
        """
        complete = self.steps()
        if step is None and complete:
            return complete[-1]
        if step in complete and step is not None:
            return step
        wanted = "no complete checkpoint" if step is None else f"no complete checkpoint of {step}"
        raise IncompleteError(
            f"{self.folder.uri} holds {wanted}; complete are {complete or 'none'}: "
            "train on, or choose one of these"
        )

    def sweep(self) -> list[int]:
        """Remove checkpoints that a killed run left without a marker; returns their steps."""
        broken = [step for step in self._all() if not self.at(step).exists(COMPLETE)]
        for step in broken:
            self.remove(step)
        return broken

    def damaged(self) -> list[int]:
        """Steps whose marker exists, but not every file as the marker names it, ascending."""
        return [
            step
            for step in self._all()
            if self.at(step).exists(COMPLETE) and not self.is_complete(step)
        ]

    def retain(self, num_to_keep: int, others: Collection[int] = ()) -> None:
        """Remove all complete checkpoints but the newest ones and some others, by step."""
        for step in self.steps()[:-num_to_keep]:
            if step not in others:
                self.remove(step)

    def remove(self, step: int) -> None:
        """Remove the checkpoint of a step."""
        folder = self.at(step)
        if folder.exists():
            folder.delete(COMPLETE)  # first, so that a kill in between leaves it incomplete
            folder.filesystem.delete_dir(folder.path)

    def without_room(self, step: int, said: str) -> str:
        """Remove what was written of a checkpoint before the disk was full.

        Args:
            step: Step of the checkpoint.
            said: Error message of the disk.

        Returns:
            What the operator has to know.
        """
        self.remove(step)
        good = self.steps()
        newest = f"step {good[-1]} is the newest good one" if good else "there is no earlier one"
        return (
            f"no room for the checkpoint of step {step} in {self.folder.uri}: {said}; {newest}. "
            "Free some space or lower checkpoint.num_to_keep, then run the same command again to "
            "continue"
        )

    def state(self, step: int) -> dict[str, Any]:
        """The plain values that a checkpoint holds beside its tensors.

        Raises:
            DamagedError: If the file was altered.
        """
        folder = self.at(step)
        try:
            payload = folder.read_bytes(STATE)
            wanted = folder.read_json(COMPLETE)["files"].get(STATE, {}).get("sha256")
            if wanted not in (None, sha256(payload)):  # earlier markers do not name it
                raise DamagedError(f"{folder.uri}/{STATE} was altered after it was written")
            found: dict[str, Any] = folder.read_json(STATE)
        except (FileNotFoundError, IncompleteError) as error:
            raise DamagedError(str(error)) from error
        return found

    def check_space(self, checkpoint_bytes: int, num_to_keep: int, base_bytes: int = 0) -> None:
        """Refuse a disk without room for the checkpoints of a run.

        A new checkpoint is written before the oldest goes, so one more than is kept must fit.
        Object stores and disks that cannot be asked are not checked.

        Args:
            checkpoint_bytes: Size of one checkpoint.
            num_to_keep: Checkpoints that are kept.
            base_bytes: Size of what is written once beside them.

        Raises:
            DiskFullError: With what is needed, what is free, and the remedy.
        """
        if not self.folder.is_local:
            return
        path = Path(self.folder.path)
        place = next(parent for parent in (path, *path.parents) if parent.exists())
        missing = max(1, num_to_keep + 1 - len(self.steps()))
        free, needed = shutil.disk_usage(place).free, missing * checkpoint_bytes + base_bytes
        if free < needed:
            raise DiskFullError(
                f"{self.folder.uri} needs {_spoken(needed)} for {missing} checkpoints of "
                f"{_spoken(checkpoint_bytes)} and {_spoken(free)} are free; free some space, lower "
                "checkpoint.num_to_keep, or give --output on another disk"
            )

    def _all(self) -> list[int]:
        from pyarrow import fs

        selector = fs.FileSelector(self.folder.path, allow_not_found=True)
        infos = self.folder.filesystem.get_file_info(selector)
        matches = (_NAME.fullmatch(info.base_name) for info in infos)
        return sorted(int(match[1]) for match in matches if match)


@contextlib.contextmanager
def disk_full_noted() -> Iterator[list[str]]:
    """Collect the error of a full disk in a list; other errors are raised."""
    problems: list[str] = []
    try:
        yield problems
    except (OSError, SafetensorError) as error:
        is_full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        if not is_full and not any(said in str(error).lower() for said in _FULL):
            raise
        problems.append(str(error))


def _spoken(size_bytes: float) -> str:
    return f"{size_bytes / 2**30:.3g} GiB"
