"""Whether music has the tempo and the key that its description names."""

from __future__ import annotations

from typing import Any

from model.tempo import requested_tempo_bpm
from pipeline.acoustics.attributes import measure_tempo_bpm
from pipeline.acoustics.musical_key import measure_key
from pipeline.evaluation import musical_requests
from pipeline.evaluation.findings import FORMS, Evidence, Findings
from pipeline.evaluation.held_out import HeldOutClip
from pipeline.evaluation.listening import Listening
from pipeline.evaluation.metric import Metric

TEMPO, KEY = "tempo within 5 %", "key"
_BY_CONSTRUCTION = (
    "where a description states a measured value, real recordings are right by construction"
)


class MusicMetric(Metric):
    """Tempo and key, estimated from the audio as the data pipeline does."""

    name = "music"

    def applies_to(self, clip: HeldOutClip) -> bool:
        """Whether a clip is music whose description names a tempo or a key."""
        return clip.modality == "music" and (
            requested_tempo_bpm(clip.description) is not None
            or musical_requests.requested_key(clip.description) is not None
        )

    def observe(self, item: Listening, form: str) -> dict[str, Any]:
        """Tempo in BPM and index of the key; None where there is none."""
        waveform = item.form(form).numpy()
        key = measure_key(waveform, item.sample_rate)
        return {
            "tempo_bpm": measure_tempo_bpm(waveform, item.sample_rate),
            "key": None if key is None else key.number,
        }

    def summarise(self, evidence: Evidence) -> Findings:
        """Share of clips whose tempo and key are those of the description."""
        found = Findings()
        clips = evidence.seen_by(self.name)
        wanted_bpm = {
            o.clip.clip_id: bpm
            for o in clips
            if (bpm := requested_tempo_bpm(o.clip.description)) is not None
        }
        wanted_key = {
            o.clip.clip_id: key
            for o in clips
            if (key := musical_requests.requested_key(o.clip.description)) is not None
        }
        seen = {f: {o.clip.clip_id: o.of(self.name, f) for o in clips} for f in FORMS}
        if wanted_bpm:
            for name, is_right in (
                (TEMPO, musical_requests.is_tempo_right),
                (f"{TEMPO}, half or double allowed", musical_requests.is_tempo_right_or_octave),
            ):
                right = {
                    f: {i: is_right(seen[f][i]["tempo_bpm"], w) for i, w in wanted_bpm.items()}
                    for f in FORMS
                }
                found.add("music", name, "higher", right, _BY_CONSTRUCTION)
        else:
            found.skipped[TEMPO] = "no description of a music clip names a tempo in BPM"
        if wanted_key:
            right = {
                f: {i: seen[f][i]["key"] == wanted for i, wanted in wanted_key.items()}
                for f in FORMS
            }
            found.add("music", KEY, "higher", right, _BY_CONSTRUCTION)
        else:
            found.skipped[KEY] = "no description of a music clip names a key"
        return found
