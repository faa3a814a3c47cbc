"""Similarity of a generated voice to another recording of the speaker."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from pipeline.evaluation import voice_encoders
from pipeline.evaluation.findings import FORMS, Evidence, Findings, Observed
from pipeline.evaluation.held_out import HeldOutClip
from pipeline.evaluation.listening import Listening
from pipeline.evaluation.metric import Metric, packed, unpacked
from pipeline.evaluation.voice_encoders import VoiceEncoder, similarity

VOICES = "voice similarity"


class VoiceMetric(Metric):
    """Cosine between speaker embeddings, beside that of recordings of other speakers."""

    def __init__(
        self, encoder: VoiceEncoder, clip_ids: Collection[str], *, were_requested: bool
    ) -> None:
        """Measure with one encoder.

        Args:
            encoder: Speaker encoder; picklable, if the evaluation has worker processes.
            clip_ids: Clips that have another recording of their speaker.
            were_requested: Whether the model was given the reference, or its embedding.
        """
        self._encoder = encoder
        self._clip_ids = frozenset(clip_ids)
        self._were_requested = were_requested
        self.name = f"{VOICES}, {encoder.name}"
        self.version = encoder.version

    def applies_to(self, clip: HeldOutClip) -> bool:
        """Whether there is another recording of the clip's speaker."""
        return clip.clip_id in self._clip_ids

    def observe(self, item: Listening, form: str) -> dict[str, Any]:
        """Similarity of one form to the reference, and the reference's embedding."""
        if item.reference is None:
            raise ValueError(f"clip {item.clip.clip_id} has no reference")
        target = self._encoder.embed(item.reference, item.sample_rate)
        ours = self._encoder.embed(item.form(form), item.sample_rate)
        found: dict[str, Any] = {"similarity": similarity(ours, target)}
        return found | ({"target": packed(target)} if form == "real" else {})

    def summarise(self, evidence: Evidence) -> Findings:
        """Mean similarity of each form, and of references of different speakers."""
        found = Findings()
        clips = evidence.seen_by(self.name)
        if not clips:
            found.skipped[VOICES] = "no speech clip has another recording of its speaker"
            return found
        forms = {
            form: {o.clip.clip_id: o.of(self.name, form)["similarity"] for o in clips}
            for form in FORMS
        }
        forms["chance"] = self._strangers(clips)
        asked = "given to the model" if self._were_requested else "described in words only"
        kind = "independent" if self._encoder.is_independent else "the conditioning encoder"
        found.add(
            "speech", self.name, "higher", forms,
            f"cosine to another recording of the speaker ({asked}); {kind}; chance is the "
            "recording of another speaker",
        )  # fmt: skip
        return found

    def _strangers(self, clips: Sequence[Observed]) -> dict[str, float]:
        """Similarity of each reference to the reference of another speaker."""
        targets = [unpacked(o.of(self.name, "real")["target"]) for o in clips]
        values = {}
        for place, item in enumerate(clips):
            others = [*range(place + 1, len(clips)), *range(place)]
            speaker = item.clip.speaker
            other = next((o for o in others if clips[o].clip.speaker != speaker), None)
            if other is not None:
                values[item.clip.clip_id] = similarity(targets[place], targets[other])
        return values


def voice_metrics(
    clip_ids: Collection[str], *, were_requested: bool, encoder_folder: str | None = None
) -> list[VoiceMetric]:
    """A metric for each encoder that is available.

    Args:
        clip_ids: Clips that have another recording of their speaker.
        were_requested: Whether the model was given the reference, or its embedding.
        encoder_folder: Folder of an x-vector model to use as well; None uses none.

    Raises:
        ValueError: If the folder holds no speaker encoder.
    """
    return [
        VoiceMetric(encoder, clip_ids, were_requested=were_requested)
        for encoder in voice_encoders.encoders(encoder_folder)
    ]
