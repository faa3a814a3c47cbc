"""Class figures: whether sounds have the class, and music the instruments, that were described.

A classifier is trained within the evaluation on real clips of the training split. Its posteriors
also give the divergence between generated and real audio, and the inception score.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation import divergence, musical_requests
from pipeline.evaluation.classifier import Classifier, ClassifierError, clip_features, trainable
from pipeline.evaluation.findings import FORMS, Evidence, Findings, Observed, SetFigure
from pipeline.evaluation.held_out import TRAINING, HeldOutClip
from pipeline.evaluation.listening import Listening
from pipeline.evaluation.metric import Metric, packed, unpacked

logger = logging.getLogger(__name__)

SOUND_CLASSES, FAMILIES = "sound class", "instrument family"
HELD_OUT, CHANCE = "classifier_on_held_out", "chance"
CLIPS_PER_CLASS = 10
"""Generated clips for each class below which no inception score is reported."""
Features = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class _Target:
    """One classification: a name, its modality, and the label of a clip."""

    name: str
    modality: str
    corpus: str | None
    label_of: Callable[[HeldOutClip], str | None]

    def includes(self, clip: HeldOutClip) -> bool:
        return clip.modality == self.modality and self.corpus in (None, clip.corpus)


class ClassMetric(Metric):
    """Class accuracy, divergence of class posteriors, and inception score."""

    name = "classes"

    def __init__(self, pool: Sequence[HeldOutClip], max_clips: int, seed: int = 0) -> None:
        """Measure with classifiers trained on a pool.

        Args:
            pool: Every described clip of the data, of all splits.
            max_clips: Largest number of clips to train a classifier on, and to test it on.
            seed: Seed of the choice of clips.
        """
        self._pool = pool
        self._max_clips = max_clips
        self._seed = seed

    def __getstate__(self) -> dict[str, Any]:
        """Without the pool, which only the driver needs."""
        return self.__dict__ | {"_pool": ()}

    def applies_to(self, clip: HeldOutClip) -> bool:
        """Whether a clip is sound or music."""
        return clip.modality in ("sound", "music")

    def observe(self, item: Listening, form: str) -> str:
        """Features of the classifier."""
        return packed(clip_features(item.form(form), item.sample_rate))

    def recordings(self, chosen: Sequence[HeldOutClip]) -> list[HeldOutClip]:
        """Clips to train and test the classifiers on; no measured clip is trained on."""
        found: dict[str, HeldOutClip] = {}
        for target in _targets(chosen):
            for clip in (*self._train(target, chosen), *self._held_out(target, chosen)):
                found[clip.clip_id] = clip
        return list(found.values())

    def summarise(self, evidence: Evidence) -> Findings:
        """Figures of each corpus of sound, and of the instrument families of music."""
        found = Findings()
        clips = [o for o in evidence.clips if o.has(self.name)]
        chosen = [o.clip for o in clips]
        if not any(clip.modality == "sound" for clip in chosen):
            found.skipped[SOUND_CLASSES] = "no clip of sound was measured"
        features = {
            name: unpacked(o.of(self.name, "real")) for name, o in evidence.recordings.items()
        }
        for target in _targets(chosen):
            here = [o for o in clips if target.includes(o.clip)]
            found.extend(self._classify(target, here, chosen, features))
        return found

    def _train(self, target: _Target, chosen: Sequence[HeldOutClip]) -> list[HeldOutClip]:
        measured = {clip.clip_id for clip in chosen}
        labelled = [
            clip
            for clip in self._pool
            if target.includes(clip)
            and clip.split == TRAINING
            and clip.clip_id not in measured
            and target.label_of(clip)
        ]
        return self._some(labelled)

    def _held_out(self, target: _Target, chosen: Sequence[HeldOutClip]) -> list[HeldOutClip]:
        known = trainable([target.label_of(c) or "" for c in self._train(target, chosen)])
        return self._some(
            [
                clip
                for clip in self._pool
                if target.includes(clip)
                and clip.split != TRAINING
                and target.label_of(clip) in known
            ]
        )

    def _some(self, clips: Sequence[HeldOutClip]) -> list[HeldOutClip]:
        def draw(clip: HeldOutClip) -> str:
            """A random but repeatable sort key."""
            return hashlib.sha256(f"{self._seed}/{clip.clip_id}".encode()).hexdigest()

        return sorted(clips, key=draw)[: self._max_clips]

    def _classify(
        self,
        target: _Target,
        clips: Sequence[Observed],
        chosen: Sequence[HeldOutClip],
        features: Features,
    ) -> Findings:
        found, modality = Findings(), target.modality
        if not any(target.label_of(o.clip) for o in clips):
            found.skipped[target.name] = f"no clip of {modality} that was measured has one label"
            return found
        train = self._train(target, chosen)
        labels = [target.label_of(clip) or "" for clip in train]
        known = trainable(labels)
        asked = [o for o in clips if target.label_of(o.clip) in known]
        if len(known) < 2 or not asked:
            found.skipped[target.name] = (
                f"{len(known)} classes have enough clips in the training split of {modality}, and "
                f"{len(asked)} measured clips are of them: prepare more labelled clips"
            )
            return found
        held_out = self._held_out(target, chosen)
        logger.info("%s: training on %d clips", target.name, len(train))
        try:
            classifier = Classifier([features[clip.clip_id] for clip in train], labels)
        except ClassifierError as error:
            found.skipped[target.name] = str(error)
            return found
        found.extend(self._accuracy(target, classifier, asked, held_out, features))
        found.extend(self._divergences(target, classifier, clips))
        return found

    def _accuracy(
        self,
        target: _Target,
        classifier: Classifier,
        asked: Sequence[Observed],
        held_out: Sequence[HeldOutClip],
        features: Features,
    ) -> Findings:
        def is_right(clips: Sequence[HeldOutClip], vectors: Sequence[Any]) -> dict[str, bool]:
            """Whether each clip is classified as its label says, by clip id."""
            said = classifier.classify(vectors) if vectors else []
            return {
                clip.clip_id: bool(label == target.label_of(clip))
                for clip, label in zip(clips, said, strict=True)
            }

        clips = [o.clip for o in asked]
        forms: dict[str, Mapping[str, float | bool]] = {
            form: is_right(clips, [unpacked(o.of(self.name, form)) for o in asked])
            for form in FORMS
        }
        forms[HELD_OUT] = is_right(held_out, [features[clip.clip_id] for clip in held_out])
        forms[CHANCE] = {clip.clip_id: 1 / len(classifier.classes) for clip in clips}
        found = Findings()
        found.add(
            target.modality, target.name, "higher", forms,
            f"{len(classifier.classes)} classes; the classifier was trained on "
            f"{classifier.training_clips} real clips of the training split, none of them measured",
        )  # fmt: skip
        return found

    def _divergences(
        self, target: _Target, classifier: Classifier, clips: Sequence[Observed]
    ) -> Findings:
        found = Findings()
        posteriors = {
            form: classifier.posteriors([unpacked(o.of(self.name, form)) for o in clips])
            for form in FORMS
        }
        by_form = {
            form: {
                o.clip.clip_id: divergence.kl_divergence(real, ours)
                for o, real, ours in zip(clips, posteriors["real"], posteriors[form], strict=True)
            }
            for form in ("reconstructed", "generated")
        }
        found.add(
            target.modality, f"KL of class posteriors, {target.name}", "lower", by_form,
            "divergence in nats from the class posterior of the recording to that of the audio "
            "made for the same description",
        )  # fmt: skip
        name = f"inception score, {target.name}"
        needed = CLIPS_PER_CLASS * len(classifier.classes)
        if len(clips) < needed:
            found.skipped[name] = (
                f"{len(clips)} clips for {len(classifier.classes)} classes; {needed} are needed: "
                "raise per_modality"
            )
            return found
        scores = {f: divergence.inception_score(values) for f, values in posteriors.items()}
        found.measures.append(SetFigure(
            target.modality, name, "higher", scores, len(clips),
            f"1 is no class at all, {len(classifier.classes)} is one certain class for each clip "
            "and all classes alike",
        ))  # fmt: skip
        return found


def _targets(chosen: Sequence[HeldOutClip]) -> list[_Target]:
    """One classification for each corpus of sound, and one for music."""
    corpora = sorted({clip.corpus for clip in chosen if clip.modality == "sound"})
    return [
        *(
            _Target(f"{SOUND_CLASSES}, {corpus}" if corpus else SOUND_CLASSES, "sound", corpus,
                    sound_class)
            for corpus in corpora
        ),
        _Target(FAMILIES, "music", None, instrument_family),
    ]  # fmt: skip


def sound_class(clip: HeldOutClip) -> str | None:
    """The label of a sound; None if it has no label or several."""
    if len(clip.tags) != 1:
        return None
    return " ".join(clip.tags[0].replace("_", " ").lower().split()) or None


def instrument_family(clip: HeldOutClip) -> str | None:
    """Family of the instrument that a clip's description names first."""
    return musical_requests.requested_family(clip.description)
