"""Which bundles hear the voice of what they made, and what they hear."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from model.bundle.bundle import Bundle
from pipeline.acoustics.speaker import StatisticsEncoder
from pipeline.serving.heard_voice import heard_voice
from tests.factories.bundle import random_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return random_bundle(tmp_path)


def trained_on(bundle: Bundle, encoder: str, speaker_dim: int) -> Bundle:
    """The bundle as if its model had been trained on embeddings of an encoder."""
    bundle.model.config = dataclasses.replace(bundle.model.config, speaker_dim=speaker_dim)
    return dataclasses.replace(bundle, card={"shards": {"speaker": {"encoder": encoder}}})


def test_the_voice_is_that_of_the_built_in_encoder(bundle: Bundle) -> None:
    voice_of = heard_voice(trained_on(bundle, StatisticsEncoder.name, 192))
    time = torch.arange(16_000) / 16_000
    waveform = sum(0.1 * torch.sin(2 * torch.pi * 120 * k * time) for k in range(1, 20))[None]
    assert isinstance(waveform, torch.Tensor)
    found = voice_of(waveform, 16_000)
    assert found is not None
    np.testing.assert_array_equal(
        found.numpy(), StatisticsEncoder().embed(waveform.numpy(), 16_000)
    )
    assert voice_of(torch.zeros(1, 16_000), 16_000) is None


@pytest.mark.parametrize(
    ("encoder", "speaker_dim"), [("x-vectors", 192), (StatisticsEncoder.name, 512)]
)
def test_a_model_of_other_embeddings_hears_none(
    bundle: Bundle, encoder: str, speaker_dim: int
) -> None:
    voice_of = heard_voice(trained_on(bundle, encoder, speaker_dim))
    assert voice_of(torch.ones(1, 16_000), 16_000) is None
