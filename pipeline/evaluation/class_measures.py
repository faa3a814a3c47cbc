"""Whether sounds have the class, and music the instruments, that the description names."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.codec.protocol import AudioCodec
from pipeline.acoustics.attributes import measure_tempo_bpm
from pipeline.acoustics.musical_key import measure_key
from pipeline.evaluation import intervals, musical_requests
from pipeline.evaluation.classifier import Classifier, ClassifierError, clip_features, trainable
from pipeline.evaluation.held_out import TRAINING, HeldOutClip
from pipeline.evaluation.listening import FORMS, Findings, Listening, load_clip

logger = logging.getLogger(__name__)

SOUND_CLASSES, FAMILIES = "sound class", "instrument family"
TEMPO, KEY = "tempo within 5 %", "key"
_BY_CONSTRUCTION = (
    "where a description states a measured value, real recordings are right by construction"
)


@dataclass(frozen=True)
class Teaching:
    """Training data of classifiers.

    Attributes:
        pool: Every described clip of the data, of all splits.
        codec: Codec whose sample rate and channel count the clips are converted to.
        max_clips: Largest number of clips to train a classifier on, and to test it on.
        seed: Seed of the choice of clips.
    """

    pool: Sequence[HeldOutClip]
    codec: AudioCodec
    max_clips: int
    seed: int = 0


def measure_sound_classes(listenings: Sequence[Listening], teaching: Teaching) -> Findings:
    """Class accuracy of sounds with exactly one label, by corpus."""
    found = Findings()
    sounds = [item for item in listenings if item.clip.modality == "sound"]
    corpora = sorted({item.clip.corpus for item in sounds})
    if not corpora:
        found.skipped[SOUND_CLASSES] = "no clip of sound was measured"
    for corpus in corpora:
        here = [item for item in sounds if item.clip.corpus == corpus]
        pool = [c for c in teaching.pool if c.modality == "sound" and c.corpus == corpus]
        name = f"{SOUND_CLASSES}, {corpus}" if corpus else SOUND_CLASSES
        found.extend(_classify("sound", name, here, pool, sound_class, teaching))
    return found


def measure_families(listenings: Sequence[Listening], teaching: Teaching) -> Findings:
    """Whether music has the instrument family that its description names first."""
    music = [item for item in listenings if item.clip.modality == "music"]
    pool = [clip for clip in teaching.pool if clip.modality == "music"]
    return _classify("music", FAMILIES, music, pool, instrument_family, teaching)


def measure_tempo_and_key(listenings: Sequence[Listening], rate: int, seed: int = 0) -> Findings:
    """Tempo and key of music against what its description names."""
    found = Findings()
    music = [item for item in listenings if item.clip.modality == "music"]
    timed = [i for i in music if musical_requests.requested_tempo_bpm(i.clip.description)]
    if timed:
        wanted = [musical_requests.requested_tempo_bpm(i.clip.description) or 0 for i in timed]
        tempi = {f: [measure_tempo_bpm(i.form(f).numpy(), rate) for i in timed] for f in FORMS}
        for name, is_right in (
            (TEMPO, musical_requests.is_tempo_right),
            (f"{TEMPO}, half or double allowed", musical_requests.is_tempo_right_or_octave),
        ):
            right = {f: [is_right(m, w) for m, w in zip(tempi[f], wanted, strict=True)]
                     for f in FORMS}  # fmt: skip
            shares = {form: intervals.mean(right[form], seed) for form in FORMS}
            found.add("music", name, "higher", shares, _BY_CONSTRUCTION)
    else:
        found.skipped[TEMPO] = "no description of a music clip names a tempo in BPM"
    keyed = [i for i in music if musical_requests.requested_key(i.clip.description) is not None]
    if keyed:
        keys = {form: [_is_key_right(item, form, rate) for item in keyed] for form in FORMS}
        shares = {form: intervals.mean(keys[form], seed) for form in FORMS}
        found.add("music", KEY, "higher", shares, _BY_CONSTRUCTION)
    else:
        found.skipped[KEY] = "no description of a music clip names a key"
    return found


def sound_class(clip: HeldOutClip) -> str | None:
    """The label of a sound; None if it has no label or several."""
    if len(clip.tags) != 1:
        return None
    return " ".join(clip.tags[0].replace("_", " ").lower().split()) or None


def instrument_family(clip: HeldOutClip) -> str | None:
    """Family of the instrument that a clip's description names first."""
    return musical_requests.requested_family(clip.description)


def _is_key_right(item: Listening, form: str, rate: int) -> bool:
    key = measure_key(item.form(form).numpy(), rate)
    wanted = musical_requests.requested_key(item.clip.description)
    return key is not None and key.number == wanted


def _classify(
    modality: str,
    name: str,
    listenings: Sequence[Listening],
    pool: Sequence[HeldOutClip],
    label_of: Callable[[HeldOutClip], str | None],
    teaching: Teaching,
) -> Findings:
    """Train on real training clips, none of them measured, and judge the three forms."""
    found = Findings()
    measured = {item.clip.clip_id for item in listenings}
    if not any(label_of(item.clip) for item in listenings):
        found.skipped[name] = f"no clip of {modality} that was measured has one label"
        return found
    train = _some(
        [c for c in pool if c.split == TRAINING and c.clip_id not in measured and label_of(c)],
        teaching,
    )
    known = trainable([label_of(clip) or "" for clip in train])
    asked = [item for item in listenings if label_of(item.clip) in known]
    if len(known) < 2 or not asked:
        found.skipped[name] = (
            f"{len(known)} classes have enough clips in the training split of {modality}, and "
            f"{len(asked)} measured clips are of them: prepare more labelled clips"
        )
        return found
    held_out = _some([c for c in pool if c.split != TRAINING and label_of(c) in known], teaching)
    logger.info("%s: training on %d clips, testing on %d", name, len(train), len(held_out))
    try:
        classifier = Classifier(
            [_features(clip, teaching.codec) for clip in train],
            [label_of(clip) or "" for clip in train],
        )
    except ClassifierError as error:
        found.skipped[name] = str(error)
        return found
    rate = teaching.codec.timebase.sample_rate
    forms = {
        form: _share_right(
            classifier, [clip_features(item.form(form), rate) for item in asked],
            [label_of(item.clip) for item in asked], teaching.seed,
        )
        for form in FORMS
    }  # fmt: skip
    forms["classifier_on_held_out"] = _share_right(
        classifier, [_features(clip, teaching.codec) for clip in held_out],
        [label_of(clip) for clip in held_out], teaching.seed,
    )  # fmt: skip
    note = (
        f"{len(classifier.classes)} classes; the classifier was trained on "
        f"{classifier.training_clips} real clips of the training split, none of them measured"
    )
    found.add(modality, name, "higher", forms, note)
    found.measures[-1]["chance"] = 1 / len(classifier.classes)
    return found


def _some(clips: Sequence[HeldOutClip], teaching: Teaching) -> list[HeldOutClip]:
    def lot(clip: HeldOutClip) -> str:
        return hashlib.sha256(f"{teaching.seed}/{clip.clip_id}".encode()).hexdigest()

    return sorted(clips, key=lot)[: teaching.max_clips]


def _features(clip: HeldOutClip, codec: AudioCodec) -> NDArray[np.float32]:
    return clip_features(load_clip(clip, codec), codec.timebase.sample_rate)


def _share_right(
    classifier: Classifier,
    features: Sequence[NDArray[np.float32]],
    labels: Sequence[str | None],
    seed: int,
) -> intervals.Estimate:
    if not features:
        return intervals.mean([], seed)
    said = classifier.classify(features)
    return intervals.mean([ours == real for ours, real in zip(said, labels, strict=True)], seed)
