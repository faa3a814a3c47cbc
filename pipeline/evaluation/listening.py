"""One clip in the forms that are compared."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.codec.protocol import AudioCodec
from pipeline.audio.files import read_audio, resample, to_channels
from pipeline.evaluation.held_out import HeldOutClip


@dataclass(frozen=True)
class Listening:
    """One clip in the three forms, `channels samples` each.

    Attributes:
        clip: The clip.
        sample_rate: Rate of all waveforms, Hz.
        real: The recording at the codec's rate.
        reconstructed: Audio decoded from the latents of the recording.
        generated: Audio generated from the description; None if that failed.
        reference: Another recording of the speaker; None if there is none.
    """

    clip: HeldOutClip
    sample_rate: int
    real: Tensor
    reconstructed: Tensor
    generated: Tensor | None
    reference: Tensor | None = None

    def form(self, name: str) -> Tensor:
        """The waveform of one form.

        A clip that could not be generated is returned as silence: it counts as wrong, instead of
        making the denominator smaller.
        """
        waveform: Tensor | None = getattr(self, name)
        if waveform is None or waveform.numel() == 0:
            return torch.zeros_like(self.real)
        return torch.nan_to_num(waveform, nan=0.0, posinf=0.0, neginf=0.0)


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
