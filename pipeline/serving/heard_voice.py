"""The voice of speech that was just generated, for the later parts of a long text."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from model.bundle.bundle import Bundle
from model.bundle.card import speaker_encoder_of
from model.bundle.synthesis import VoiceOf


def heard_voice(bundle: Bundle) -> VoiceOf:
    """The built-in speaker encoder, for a model that was trained on its embeddings."""

    def voice_of(
        waveform: Float[Tensor, "channels samples"], sample_rate: int
    ) -> Float[Tensor, " speaker_dim"] | None:
        """Embedding of a waveform; None if it is too quiet, or the model knows other embeddings."""
        # SciPy takes a quarter of a second to import, which a short text does without.
        from pipeline.acoustics.speaker import StatisticsEncoder

        encoder = StatisticsEncoder()
        trained_on = speaker_encoder_of(bundle.card), bundle.model.config.speaker_dim
        if trained_on != (encoder.name, encoder.speaker_dim):
            return None
        voice = torch.from_numpy(encoder.embed(waveform.numpy(), sample_rate))
        return voice if bool(voice.any()) else None

    return voice_of
