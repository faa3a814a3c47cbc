"""A group of Ray Train workers: what one of them does without the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.storage import Folder
from pipeline.training.workers import place_of_worker, run_group

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]


def test_a_worker_looks_for_an_eviction_without_the_others(
    ray_session: None, tmp_path: Path
) -> None:
    def look(config: dict[str, Any]) -> None:
        place = place_of_worker()
        if place.is_first:  # another one would have to come too if this were a barrier
            Path(config["answer"]).write_text(str(place.is_preempted()))

    run_group(
        look,
        {"answer": str(tmp_path / "answer")},
        folder=Folder.at(tmp_path / "checkpoints"),
        num_workers=2,
        resources={"CPU": 1.0},
        max_failures=0,
        request_stop=lambda name: None,
    )
    assert (tmp_path / "answer").read_text() == "False"
