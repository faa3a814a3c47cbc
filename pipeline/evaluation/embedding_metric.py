"""Distances between sets of clips in an embedding: Fréchet, its limit, kernel distance, diversity.

The built-in embedding is log-mel statistics. CLAP is read from a local folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import pdist
from torch import Tensor

from model.config import MODALITIES
from pipeline.evaluation import frechet
from pipeline.evaluation.findings import FORMS, Evidence, Findings, Measure, Observed, SetFigure
from pipeline.evaluation.listening import Listening
from pipeline.evaluation.metric import Metric, packed, unpacked

Vectors = NDArray[np.float64]
MIN_KERNEL_CLIPS = 10
"""Smallest set for a kernel distance, which is unbiased but varies much with few clips."""


class AudioEmbedding(Protocol):
    """Maps a clip to one vector.

    Attributes:
        name: Name in the report.
        version: Digest of its weights, or a version.
    """

    name: str
    version: str

    def embed(self, waveform: Tensor, sample_rate: int) -> NDArray[np.floating[Any]]:
        """Vector of `channels samples`."""

    def score(self, waveform: Tensor, sample_rate: int, text: str) -> float | None:
        """How well a text describes the audio; None if the embedding knows no text."""


class MelStatistics:
    """Mean and spread of log-mel bands; see `frechet.mel_embedding`."""

    name = "mel"
    version = "1"

    def embed(self, waveform: Tensor, sample_rate: int) -> NDArray[np.floating[Any]]:
        """Vector of `channels samples`."""
        return frechet.mel_embedding(waveform, sample_rate)

    def score(self, waveform: Tensor, sample_rate: int, text: str) -> None:
        """None, since the embedding has no text encoder."""
        return


class EmbeddingMetric(Metric):
    """All figures that an embedding gives."""

    compares_takes = True

    def __init__(self, embedding: AudioEmbedding) -> None:
        self._embedding = embedding
        self.name = f"embedding {embedding.name}"
        self.version = embedding.version

    def observe(self, item: Listening, form: str) -> dict[str, Any]:
        """Vector of the waveform, and its agreement with the description."""
        waveform, rate = item.form(form), item.sample_rate
        return {
            "vector": packed(self._embedding.embed(waveform, rate)),
            "score": self._embedding.score(waveform, rate, item.clip.description),
        }

    def summarise(self, evidence: Evidence) -> Findings:
        """Figures of each modality, or why the clips are too few."""
        found = Findings()
        for modality in MODALITIES:
            clips = evidence.seen_by(self.name, modality)
            if not clips:
                continue
            found.extend(self._distances(modality, clips))
            found.extend(self._scores(modality, clips))
            found.extend(self._diversity(modality, clips, evidence))
        return found

    def _distances(self, modality: str, clips: Sequence[Observed]) -> Findings:
        found = Findings()
        real = self._vectors(clips, "real")
        others = {
            form: self._vectors([o for o in clips if form != "generated" or not o.failure], form)
            for form in ("reconstructed", "generated")
        }
        name = self._embedding.name
        count = min(len(real), *(len(vectors) for vectors in others.values()))
        needed = frechet.MIN_CLIPS_PER_DIMENSION * real.shape[1]
        # The extrapolation takes distances of half of the clips as well.
        for title, measure, least in (
            (f"{name}-FD", frechet.frechet_distance, needed),
            (f"{name}-FD, extrapolated", frechet.extrapolated_distance, 2 * needed),
        ):
            if count >= least:
                values = {form: measure(vectors, real) for form, vectors in others.items()}
                found.measures.append(SetFigure(modality, title, "lower", values, count, _NOTE))
            else:
                found.skipped[f"{title} of {modality}"] = (
                    f"{count} clips are too few for a covariance of {real.shape[1]} dimensions; "
                    f"{least} are needed: raise per_modality"
                )
        if count >= MIN_KERNEL_CLIPS:
            values = {form: frechet.kernel_distance(v, real) for form, v in others.items()}
            found.measures.append(
                SetFigure(modality, f"{name}-KD", "lower", values, count, _KERNEL_NOTE)
            )
        else:
            found.skipped[f"{name}-KD of {modality}"] = (
                f"{count} clips; {MIN_KERNEL_CLIPS} are needed: raise per_modality"
            )
        return found

    def _scores(self, modality: str, clips: Sequence[Observed]) -> Findings:
        found = Findings()
        forms = {
            form: {
                o.clip.clip_id: score
                for o in clips
                if (score := o.of(self.name, form)["score"]) is not None
            }
            for form in FORMS
        }
        if forms["generated"]:
            note = "cosine between the embeddings of audio and description"
            found.add(modality, f"{self._embedding.name} score", "higher", forms, note)
        return found

    def _diversity(self, modality: str, clips: Sequence[Observed], evidence: Evidence) -> Findings:
        """Distance between generations of one prompt, relative to that between recordings."""
        found = Findings()
        if not evidence.takes or len(clips) < 2:
            return found
        real = self._vectors(clips, "real")
        scale = real.std(0).clip(1e-6)
        between = mean_pairwise_distance(real / scale)
        values = {}
        for item in clips:
            takes = [item, *evidence.takes.get(item.clip.clip_id, ())]
            made = [take for take in takes if take.failure is None]
            if len(made) > 1:
                vectors = self._vectors(made, "generated") / scale
                values[item.clip.clip_id] = (mean_pairwise_distance(vectors), between)
        if values:
            found.measures.append(Measure(
                modality, f"diversity between seeds, {self._embedding.name}", "",
                {"generated": values},
                "mean distance between generations of one prompt; 1 is the mean distance between "
                "recordings of different prompts, 0 is the same audio for every seed",
            ))  # fmt: skip
        return found

    def _vectors(self, clips: Sequence[Observed], form: str) -> Vectors:
        vectors = [unpacked(o.of(self.name, form)["vector"]) for o in clips]
        return np.stack(vectors).astype(np.float64) if vectors else np.zeros((0, 1))


_NOTE = (
    "Fréchet distance; the reconstruction's own value is the floor that the model can reach. It "
    "has no interval, because resampled clips bias it upwards. The extrapolated value is the limit "
    "for infinitely many clips. Values of the embedding `mel` are not comparable with published FAD"
)
_KERNEL_NOTE = (
    "kernel distance, without bias by the number of clips; slightly negative values mean no "
    "difference"
)


def mean_pairwise_distance(vectors: Vectors) -> float:
    """Mean Euclidean distance over all pairs of rows.

    Args:
        vectors: `clips features`, two clips or more.
    """
    return float(pdist(vectors).mean())
