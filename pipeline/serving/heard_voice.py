"""The voice of speech that was just generated, for the later parts of a long text."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from model.bundle.bundle import Bundle
from model.bundle.card import speaker_encoder_of
from model.bundle.synthesis import VoiceOf
from pipeline.acoustics.speaker import StatisticsEncoder


def heard_voice(bundle: Bundle) -> VoiceOf | None:
    """The built-in speaker encoder, if the model of a bundle was trained on its embeddings."""
    encoder = StatisticsEncoder()
    if (
        speaker_encoder_of(bundle.card) != encoder.name
        or bundle.model.config.speaker_dim != encoder.speaker_dim
    ):
        return None

    def voice_of(
        waveform: Float[Tensor, "channels samples"], sample_rate: int
    ) -> Float[Tensor, " speaker_dim"] | None:
        """Embedding of a waveform; None if it is too quiet."""
        voice = torch.from_numpy(encoder.embed(waveform.numpy(), sample_rate))
        return voice if bool(voice.any()) else None

    return voice_of
