"""Loss on held-out clips at checkpoints, and which checkpoints it is a reason to keep.

Clips, prompts, noise and flow times are the same at every validation and do not depend on the
run's own dropout, noise, flow times or seed, so that runs with other values of these compare.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping

import torch

from model.audiocalm import AudioCALM
from model.config import MODALITIES, ModelConfig
from model.objective import VECTOR_LENGTH, LossSums, flow_by_document, losses
from model.text import Tokenizer
from pipeline.errors import SettingsError
from pipeline.storage import Folder
from pipeline.training.alignment import Alignment
from pipeline.training.average import averaged_model
from pipeline.training.checkpoint_store import CheckpointStore
from pipeline.training.engine import precision_of
from pipeline.training.feed import Feed
from pipeline.training.metrics import TOTAL_LOSS, VALIDATION, loss_metrics
from pipeline.training.parent import Parent
from pipeline.training.settings import CheckpointSettings, TrainSettings
from pipeline.training.setup import shards_for

logger = logging.getLogger(__name__)

_SEED = 0
_FEED = {
    "modality_weights": dict.fromkeys(MODALITIES, 1.0),
    "language_weights": {},
    "corpus_weights": {},
    "condition_dropout": 0.0,
    "speaker_dropout": 0.0,
    "history_noise_share": 0.0,
    "uniform_time_share": 1.0,
    "skip_steps": (),
}
"""Settings of the feed that are fixed: no dropout and no augmentation, uniform flow times."""


def validation_feed(
    settings: TrainSettings,
    folder: Folder,
    parent: Parent | None,
    config: ModelConfig,
    tokenizer: Tokenizer,
    split: str = "validation",
    alignment: Alignment | None = None,
) -> Feed:
    """The held-out clips of train-shards; step 0 of the feed is the whole validation.

    Args:
        settings: The run's settings.
        folder: Train-shards.
        parent: Weights that the run started from, whose latent statistics it keeps.
        config: The model's configuration.
        tokenizer: Encodes the prompts.
        split: Split of the shards.
        alignment: Durations of its words, for a model that paces speech.

    Raises:
        SettingsError: If the shards hold no clip to validate on.
    """
    fixed = {**_FEED, "documents_per_step": settings.validation.num_documents}
    shards = shards_for(folder, parent, split)
    try:
        return Feed(
            shards,
            settings.feed.model_copy(update=fixed),
            config,
            tokenizer,
            _SEED,
            alignment=alignment,
        )
    except ValueError as error:
        raise SettingsError(
            f"validation.every is {settings.validation.every} and {folder.uri} has no clip in its "
            f"{split} split that fits a row ({error}); prepare the corpus with a {split} "
            "split, or set validation.every to 0"
        ) from error


class Validation:
    """Measures checkpoints with the weight average, which is what gets exported.

    It runs in one worker, on a model of its own: neither the trained weights nor any random state
    of training is touched.

    Args:
        settings: The run's settings.
        feed: `validation_feed`.
        device: Torch device of the computation.
    """

    def __init__(self, settings: TrainSettings, feed: Feed, device: torch.device) -> None:
        self._settings = settings
        self._feed = feed
        self._device = device

    def is_due(self, step: int) -> bool:
        """Whether the checkpoint of a step is measured."""
        return step % self._settings.validation.every == 0 or step == self._settings.optim.num_steps

    @torch.no_grad()
    def metrics(self, store: CheckpointStore, step: int) -> dict[str, float]:
        """Losses of a checkpoint, named `validation/loss/...`: total, flow loss by modality and by
        tenth of flow time, stop and duration loss.

        Raises:
            IncompleteError: If there is no such checkpoint, or it was altered.
        """
        began = time.monotonic()
        dtype = torch.bfloat16 if precision_of(self._settings) == "bf16" else torch.float32
        total = torch.zeros(VECTOR_LENGTH, dtype=torch.float64)
        devices = [self._device] if self._device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):  # building a model draws its initial weights
            model = averaged_model(store, step).to(self._device, dtype)
        for micro_batch in self._feed.batch(0).micro_batches:
            part = micro_batch.to(self._device)
            total += losses(model(part), part).to_vector().cpu()
        found = loss_metrics(LossSums.from_vector(total), self._settings.stop_weight)
        logger.info(
            "validation loss %.4f at step %d, %d documents in %.1f s",
            found[TOTAL_LOSS],
            step,
            self._settings.validation.num_documents,
            time.monotonic() - began,
        )
        return {
            f"{VALIDATION}{name}": value
            for name, value in found.items()
            if name.startswith("loss/")
        }


@torch.no_grad()
def clip_losses(model: AudioCALM, feed: Feed) -> dict[str, tuple[float, float]]:
    """Flow loss of every held-out clip, in float32: sum over its noisy frames, and their number.

    Args:
        model: Model in eval mode, on the CPU.
        feed: The result of `validation_feed`.

    Returns:
        The two values by clip key; a clip that was drawn several times has the sums of all draws.
    """
    found: dict[str, tuple[float, float]] = {}
    batch = feed.batch(0)
    for micro_batch, keys in zip(batch.micro_batches, batch.clips, strict=True):
        sums, counts = flow_by_document(model(micro_batch), micro_batch)
        is_document = counts > 0
        pairs = zip(sums[is_document].tolist(), counts[is_document].tolist(), strict=True)
        for key, (total, count) in zip(keys, pairs, strict=True):
            before = found.get(key, (0.0, 0.0))
            found[key] = before[0] + total, before[1] + count
    return found


def lasting_steps(
    settings: CheckpointSettings, steps: Iterable[int], losses_by_step: Mapping[int, float]
) -> set[int]:
    """Checkpoints that stay besides the newest: every so many steps, and the best.

    Args:
        settings: How many of which.
        steps: Checkpoints there are.
        losses_by_step: Validation losses; equal ones prefer the earlier step.
    """
    there = sorted(steps)
    scored = [step for step in there if step in losses_by_step]
    best = sorted(scored, key=lambda step: losses_by_step[step])[: settings.keep_best]
    regular = [step for step in there if settings.keep_every and step % settings.keep_every == 0]
    return {*best, *regular}
