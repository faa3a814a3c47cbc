"""Ends an operation at its n-th write or removal below any directory, as a kill would."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pipeline.storage import Folder


class Killed(BaseException):
    """What a process does not survive."""


def is_killed_at(
    monkeypatch: pytest.MonkeyPatch, num_writes: int, operate: Callable[[], object]
) -> bool:
    """Whether an operation died because it wrote or removed more than `num_writes` files.

    Nothing is written after that, as by a process that is gone.
    """
    left = num_writes

    def counted(act: Callable[..., None]) -> Callable[..., None]:
        def counting(*given: Any) -> None:
            nonlocal left
            if not left:
                raise Killed
            left -= 1
            act(*given)

        return counting

    with monkeypatch.context() as armed:
        for name in ("write_bytes", "delete"):
            armed.setattr(Folder, name, counted(getattr(Folder, name)))
        try:
            operate()
        except Killed:
            return True
    return False
