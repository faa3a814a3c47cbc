"""A group of Ray Train workers: what they ask Ray for together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import ray.train

from pipeline.storage import Folder
from pipeline.training.workers import place_of_worker, run_group


def test_ray_offers_the_public_call_that_finds_evictions() -> None:
    assert callable(ray.train.get_preemption_info)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_workers_look_for_an_eviction_together(ray_session: None, tmp_path: Path) -> None:
    def look(config: dict[str, Any]) -> None:
        place = place_of_worker()
        found = place.gather(place.is_preempted())
        if place.is_first:
            Path(config["answer"]).write_text(str(found))

    run_group(
        look,
        {"answer": str(tmp_path / "answer")},
        folder=Folder.at(tmp_path / "checkpoints"),
        num_workers=2,
        resources={"CPU": 1.0},
        max_failures=0,
        request_stop=lambda name: None,
    )
    assert (tmp_path / "answer").read_text() == "[False, False]"
