"""One process group and one small directory of shards for the whole room."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.factories.train_shards import mixed_clips, write_shards
from tests.factories.training import process_group


@pytest.fixture(scope="session")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A group of this process alone; DeepSpeed keeps references to it, so there is only one."""
    with process_group(tmp_path_factory.mktemp("group") / "store"):
        yield


@pytest.fixture(scope="session")
def small_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve clips of three modalities and two speakers."""
    path = tmp_path_factory.mktemp("shards")
    write_shards(path, mixed_clips(12))
    return path
