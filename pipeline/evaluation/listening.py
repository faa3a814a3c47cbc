"""A clip in the three forms that are compared, and the measures of the comparison."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.codec.protocol import AudioCodec
from pipeline.audio_io import read_audio, resample, to_channels
from pipeline.evaluation.held_out import HeldOutClip
from pipeline.evaluation.intervals import Estimate

FORMS = ("real", "reconstructed", "generated")
"""The recording, its reconstruction by the codec, and the generation from its description."""


@dataclass
class Listening:
    """One clip in the three forms, `channels samples` each.

    Attributes:
        clip: The clip.
        real: The recording at the codec's rate.
        reconstructed: Audio decoded from the latents of the recording.
        generated: Audio generated from the description; None if that failed.
        generate_s: Duration of the generation, seconds.
    """

    clip: HeldOutClip
    real: Tensor
    reconstructed: Tensor
    generated: Tensor | None
    generate_s: float

    def form(self, name: str) -> Tensor:
        """The waveform of one of `FORMS`.

        A clip that could not be generated is silence here: it counts as wrong, instead of making
        the denominator smaller.
        """
        waveform: Tensor | None = getattr(self, name)
        if waveform is None or waveform.numel() == 0:
            return torch.zeros_like(self.real)
        return torch.nan_to_num(waveform, nan=0.0, posinf=0.0, neginf=0.0)


@dataclass
class Findings:
    """Measures as plain values, and the reasons of missing ones.

    Attributes:
        measures: One for each figure: `modality`, `name`, `better` (higher or lower), an estimate
            for each of `FORMS`, and a `note`.
        skipped: Reason for each measure that was left out.
    """

    measures: list[dict[str, Any]] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)

    def add(
        self, modality: str, name: str, better: str, forms: Mapping[str, Estimate], note: str = ""
    ) -> None:
        """Add a measure."""
        self.measures.append(
            {"modality": modality, "name": name, "better": better, **forms, "note": note}
        )

    def extend(self, other: Findings) -> None:
        """Add all measures and reasons of another one."""
        self.measures += other.measures
        self.skipped |= other.skipped


def load_clip(clip: HeldOutClip, codec: AudioCodec) -> Tensor:
    """The clip at the codec's rate and channel count, `channels samples`."""
    audio = read_audio(clip.uri, clip.start_s, clip.end_s)
    rate = codec.timebase.sample_rate
    waveform = resample(to_channels(audio.waveform, codec.num_channels), audio.sample_rate, rate)
    return torch.from_numpy(np.ascontiguousarray(waveform, dtype=np.float32))


def reconstruct(waveform: Tensor, codec: AudioCodec) -> Tensor:
    """Reconstruction of a waveform at the same length, decoded from the mean of the posterior."""
    with torch.inference_mode():
        decoded = codec.decode(codec.encode(waveform[None]).mean)[0]
    return decoded[:, : waveform.shape[-1]].clone()


def by_modality(listenings: Sequence[Listening]) -> dict[str, list[Listening]]:
    """Listenings by the modality of their clip, in order."""
    groups: dict[str, list[Listening]] = defaultdict(list)
    for item in listenings:
        groups[item.clip.modality].append(item)
    return dict(groups)
