"""How often a unit was tried, kept on the stage's directory so that it outlives the worker.

A worker that dies (a decoder's segmentation fault, the kernel's memory killer) is started again and
gets the same unit. Without a count kept outside the process, one poison file would loop for ever.
A worker whose node left the cluster, as spot nodes do, counts for nothing: it was no clip's fault.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from pipeline.cluster import is_node_lost, this_node
from pipeline.faults import retried
from pipeline.storage import Folder

logger = logging.getLogger(__name__)

ATTEMPTS = "_attempts"
"""Folder of the counts; empty again when the stage is done."""
DEATHS_TO_BLAME = 2
"""Deaths at one item before it is refused: a single one may be the memory killer's or an operator's
choice, and refusing a good clip for it would leave other bytes than an undisturbed run."""
MAX_SUSPECTS = 32
"""Items of one unit that may be blamed for deaths before the unit as a whole is."""


@dataclass(frozen=True)
class Attempts:
    """Attempts of one run of a stage.

    Attributes:
        folder: The stage's directory.
        run_id: Differs between runs: an interrupted job owes nothing to the next one.
        max_attempts: Deaths without an item to blame before the unit is given up.
    """

    folder: Folder
    run_id: str
    max_attempts: int

    def begin(self, unit: str) -> Attempt:
        """Note that a unit is started, and say which attempt this is."""
        path = f"{ATTEMPTS}/{unit}.json"
        before = self.folder.read_json(path) if self.folder.exists(path) else {}
        if before.get("run_id") != self.run_id:
            before = {"number": 0, "blind_deaths": -1, "suspects": [], "item": None, "node": ""}
        number, blind_deaths = before["number"], before["blind_deaths"]
        suspects = list(before["suspects"])
        if is_node_lost(before["node"]):
            logger.warning("unit %s is tried again: node %s was lost", unit, before["node"])
        elif before["item"] is None:
            number, blind_deaths = number + 1, blind_deaths + 1
        else:
            number += 1
            suspects.append(before["item"])
        verdict = ""
        if blind_deaths >= self.max_attempts:
            verdict = f"worker died {blind_deaths} times; give it more memory or see its log"
        elif len(suspects) > DEATHS_TO_BLAME * MAX_SUSPECTS:
            count = len(set(suspects))
            verdict = f"{count} items killed the worker, first {suspects[0]}"
        attempt = Attempt(
            self,
            unit,
            {
                "run_id": self.run_id,
                "number": number,
                "blind_deaths": blind_deaths,
                "suspects": suspects,
                "item": None,
                "node": this_node(),
            },
            verdict,
        )
        attempt.save()
        return attempt

    def end(self, unit: str) -> None:
        """Forget a unit that is committed."""
        self.folder.delete(f"{ATTEMPTS}/{unit}.json")

    def clear(self) -> None:
        """Remove the folder of counts."""
        if self.folder.exists(ATTEMPTS):
            path = self.folder.join(ATTEMPTS)
            retried(lambda: self.folder.filesystem.delete_dir(path), f"delete {path}")


@dataclass
class Attempt:
    """One try at a unit; `verdict` is empty, or says why there is none left."""

    attempts: Attempts
    unit: str
    state: dict[str, Any]
    verdict: str
    _blamed: set[str] = field(init=False)

    def __post_init__(self) -> None:
        deaths = Counter(self.state["suspects"])
        self._blamed = {item for item, count in deaths.items() if count >= DEATHS_TO_BLAME}

    @property
    def number(self) -> int:
        """1 for the first."""
        return int(self.state["number"])

    def enter(self, item: str) -> bool:
        """Whether an item may be touched; from the second attempt on it is noted before.

        An empty name notes that no single item is under way.
        """
        if item in self._blamed:
            return False
        if self.number > 1:
            self.state["item"] = item or None
            self.save()
        return True

    def save(self) -> None:
        """Write the state where the next worker finds it."""
        self.attempts.folder.write_json(f"{ATTEMPTS}/{self.unit}.json", self.state)
