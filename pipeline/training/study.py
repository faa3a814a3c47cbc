"""A study: several settings of one training, at equal compute, with several seeds each.

Every arm differs from `train` in a few settings and gets as many steps as the floating-point
operations of the reference arm allow, so that its budget does not depend on what else the machine
does. Measured is the flow loss of single held-out clips, with the weight average, under the same
noise and flow times in every run.

settings.yaml         resolved settings of the last start
runs/ARM-SEED/        run directories of `audiocalm train`
losses/ARM-SEED.json  a measured run: steps, seconds, and the losses of every clip; written last
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

from pydantic import Field, model_validator

from model.config import MODALITIES, ModelConfig
from model.cost import Counts, document_counts, training_flops
from model.text import Tokenizer
from model.timebase import num_blocks
from pipeline.cluster import kept_ray
from pipeline.errors import SettingsError
from pipeline.settings import Settings, changed, digest_of, save_settings
from pipeline.storage import Folder
from pipeline.training.alignment import Alignment
from pipeline.training.average import averaged_model
from pipeline.training.checkpoint_store import CheckpointStore
from pipeline.training.documents import Plan
from pipeline.training.feed import Feed
from pipeline.training.run import train_run
from pipeline.training.rundir import CHECKPOINTS
from pipeline.training.settings import Positive, TrainSettings
from pipeline.training.setup import model_config, open_tokenizer
from pipeline.training.shards import TrainShards
from pipeline.training.validation import clip_losses, validation_feed

logger = logging.getLogger(__name__)

RUNS, LOSSES = "runs", "losses"
"""Directories of the runs and of what was measured on them, below the output."""
HELD_OUT = ("validation", "test")
"""Splits that are measured; no choice of a study is made on either."""
_COUNTED_STEPS = 48
"""Steps whose operations are counted for the mean of an arm."""


class StudySettings(Settings):
    """Arms, seeds and held-out clips of a study."""

    train: TrainSettings = TrainSettings()
    """Training of every arm; `optim.num_steps` are those of the reference. Keep `optim.decay_share`
    at 0, so that a checkpoint on the way is what a shorter run would have ended with."""
    arms: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """What each arm changes in `train`, nested, by the name of the arm."""
    reference: str = "joint"
    """Arm that the others are compared with."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds; every arm is trained once with each. All arms of one seed come before the next."""
    num_held_out: Positive = 240
    """Documents of each held-out split that are measured, equally many of each modality."""

    @model_validator(mode="after")
    def _has_its_reference(self) -> Self:
        if self.arms and self.reference not in self.arms:
            raise ValueError(f"reference {self.reference!r} is none of the arms {list(self.arms)}")
        return self


@dataclass(frozen=True)
class Arm:
    """One arm with its budget.

    Attributes:
        name: Name of the arm.
        settings: Settings of its training, with its own `optim.num_steps`.
        shares: Share of each modality in the stream.
        flops: Mean operations of a step.
        matched_steps: Step, by modality, after which it has seen as many documents of the modality
            as the reference at its end, and has a checkpoint; at most its last one.
    """

    name: str
    settings: TrainSettings
    shares: dict[str, float]
    flops: float
    matched_steps: dict[str, int]


def study_arms(settings: StudySettings, shards: Folder) -> list[Arm]:
    """The arms with their steps; the reference comes first.

    Raises:
        SettingsError: If there is no arm, or one has unknown settings.
    """
    if not settings.arms:
        raise SettingsError("arms is empty; name at least one with the settings that it changes")
    names = sorted(settings.arms, key=lambda name: name != settings.reference)
    opened = {name: _Opened(name, settings, shards) for name in names}
    reference = opened[settings.reference]
    steps = settings.train.optim.num_steps
    return [arm.with_budget(reference, steps) for arm in opened.values()]


def run_study(settings: StudySettings, shards: Folder, output: Folder) -> Iterator[dict[str, Any]]:
    """Train and measure the runs that are not measured yet; yields every measured one in turn.

    Args:
        settings: Arms and seeds.
        shards: Complete train-shards.
        output: Directory of the study, on a disk or object store that workers reach.

    Yields:
        Contents of `losses/ARM-SEED.json`: `arm`, `seed`, `steps`, `seconds`, `flops`,
        `num_parameters`, `shares`, `matched_steps`, and by step `losses`, which has sum and number
        of frames by clip.

    Raises:
        SettingsError: If the directory belongs to a study of other settings or shards.
        KeyboardInterrupt: If a run was interrupted; the same call continues.
    """
    arms = study_arms(settings, shards)
    digest = TrainShards(shards).digest
    output.write_bytes("settings.yaml", save_settings(settings).encode())
    total, number = len(arms) * len(settings.seeds), 0
    with kept_ray():
        for seed in settings.seeds:
            for arm in arms:
                number += 1
                trained = changed(arm.settings, {"seed": seed})
                identity = digest_of([trained.identity(), digest, settings.num_held_out])
                name = f"{arm.name}-{seed}"
                if (found := _measured(output, name, identity)) is None:
                    steps = trained.optim.num_steps
                    logger.info("study: %s, %d steps, run %d of %d", name, steps, number, total)
                    found = _run(arm, trained, settings.num_held_out, shards, output)
                    output.child(LOSSES).write_json(f"{name}.json", found | {"identity": identity})
                    found = output.child(LOSSES).read_json(f"{name}.json")
                yield found


def clip_facts(shards: Folder) -> dict[str, dict[str, str]]:
    """Modality, and speaker or else the clip itself as `cluster`, of every held-out clip."""
    found = {}
    for split in HELD_OUT:
        opened = TrainShards(shards, split)
        columns = (opened.column(name) for name in ("key", "modality", "speaker"))
        for key, modality, speaker in zip(*columns, strict=True):
            found[str(key)] = {"modality": str(modality), "cluster": str(speaker or key)}
    return found


class _Opened:
    """An arm before its budget is known."""

    def __init__(self, name: str, study: StudySettings, shards: Folder) -> None:
        self.name = name
        try:
            self.settings = changed(study.train, study.arms[name])
        except SettingsError as error:
            raise SettingsError(f"arm {name!r}: {error}") from error
        opened = TrainShards(shards)
        tokenizer = open_tokenizer(self.settings.model)
        self._config = model_config(self.settings.model, opened, tokenizer)
        self._feed = Feed(opened, self.settings.feed, self._config, tokenizer, self.settings.seed)

    @cached_property
    def flops(self) -> float:
        """Mean operations of a step, over the documents of the first ones."""
        rows = (row for step in range(_COUNTED_STEPS) for row in self._feed.rows(step))
        total = sum((self._counts(plan) for row in rows for plan in row), start=Counts())
        return training_flops(self._config, total) / _COUNTED_STEPS

    def _counts(self, plan: Plan) -> Counts:
        modality, is_singing = plan.row["modality"], bool(plan.row["is_singing"])
        block = self._config.frames_per_block
        return document_counts(
            self._config,
            len(plan.token_ids),
            num_blocks(plan.stop - plan.start, block) * block,
            self.settings.feed.num_noisy_copies,
            uses_expert=self._config.expert.routes(modality, is_singing=is_singing),
        )

    def documents(self, modality: str) -> float:
        """Documents of a modality in a step."""
        return self.settings.feed.documents_per_step * self._feed.shares.get(modality, 0.0)

    def with_budget(self, reference: _Opened, reference_steps: int) -> Arm:
        """The arm with as many steps as cost what those of the reference cost."""
        steps = max(1, round(reference_steps * reference.flops / self.flops))
        exact = {
            modality: min(steps, max(1, round(reference_steps * theirs / own)))
            for modality in MODALITIES
            if (own := self.documents(modality)) and (theirs := reference.documents(modality))
        }
        # A checkpoint comes at the first of these steps, whatever the recipe says.
        on_the_way = [step for step in exact.values() if step < steps]
        every = min(on_the_way, default=self.settings.checkpoint.every)
        matched = {
            modality: min(steps, round(step / every) * every) if step < steps else step
            for modality, step in exact.items()
        }
        kept = {"every": every, "num_to_keep": steps // every + 1, "keep_every": 0, "keep_best": 0}
        # The study validates by itself, at steps that need not suit those of the recipe.
        own_budget = {"optim": {"num_steps": steps}, "checkpoint": kept}
        off = {"validation": {"every": 0}, "sample": {"every": 0}}
        settings = changed(self.settings, own_budget | off)
        return Arm(self.name, settings, dict(self._feed.shares), self.flops, matched)


def _measured(output: Folder, name: str, identity: str) -> dict[str, Any] | None:
    losses = output.child(LOSSES)
    if not losses.exists(f"{name}.json"):
        return None
    found: dict[str, Any] = losses.read_json(f"{name}.json")
    if found["identity"] != identity:
        raise SettingsError(
            f"{losses.uri}/{name}.json was measured with other settings or shards; give a new "
            "directory, or the settings of this one"
        )
    return found


def _run(
    arm: Arm, settings: TrainSettings, num_held_out: int, shards: Folder, output: Folder
) -> dict[str, Any]:
    run = output.child(RUNS, f"{arm.name}-{settings.seed}")
    summary = train_run(settings, shards.uri, run.uri)
    if summary["state"] == "stopped":
        raise KeyboardInterrupt
    store = CheckpointStore(run.child(CHECKPOINTS))
    steps = sorted({settings.optim.num_steps, *arm.matched_steps.values()})
    losses = _losses(settings, num_held_out, shards, run, steps)
    store.retain(1)
    return {
        "arm": arm.name,
        "seed": settings.seed,
        "steps": settings.optim.num_steps,
        "seconds": summary["seconds"],
        "flops": arm.flops * settings.optim.num_steps,
        "num_parameters": summary["num_parameters"],
        "shares": arm.shares,
        "matched_steps": arm.matched_steps,
        "losses": losses,
    }


def _losses(
    settings: TrainSettings,
    num_held_out: int,
    shards: Folder,
    run: Folder,
    steps: list[int],
) -> dict[str, dict[str, tuple[float, float]]]:
    """Losses of every held-out clip, by step."""
    store = CheckpointStore(run.child(CHECKPOINTS))
    validated = changed(settings, {"validation": {"num_documents": num_held_out}})
    tokenizer: Tokenizer = open_tokenizer(settings.model)
    config: ModelConfig = model_config(settings.model, TrainShards(shards), tokenizer)
    feeds = [
        validation_feed(
            validated,
            shards,
            None,
            config,
            tokenizer,
            split,
            Alignment(run, split) if config.paces_speech else None,
        )
        for split in HELD_OUT
    ]
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for step in steps:
        model = averaged_model(store, step)
        found[str(step)] = {}
        for feed in feeds:
            found[str(step)] |= clip_losses(model, feed)
        logger.info("study: step %d measured on %d clips", step, len(found[str(step)]))
    return found
