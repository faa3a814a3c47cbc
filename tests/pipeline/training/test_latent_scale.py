"""Latents on the scale of what their channels are worth to a listener."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from model.sequence import CLEAN
from model.text import ByteTokenizer
from pipeline.errors import SettingsError
from pipeline.storage import Folder
from pipeline.training.feed import Feed
from pipeline.training.settings import FeedSettings
from pipeline.training.shards import TrainShards
from tests.factories.train_shards import (
    FakeClip,
    mixed_clips,
    one_layer_config,
    write_shards,
)

CONFIG = one_layer_config()


def test_scaled_latents_need_a_codec_that_states_the_importance_of_its_channels(
    tmp_path: Path,
) -> None:
    write_shards(tmp_path, mixed_clips(4))
    shards = TrainShards(Folder.at(tmp_path))
    assert np.array_equal(shards.latent_scale(0.0), shards.latent_std)
    with pytest.raises(SettingsError, match=r"importance_power is 1\.0 .* states no importance"):
        shards.latent_scale(1.0)
    shards.card["codec"]["channel_importance"] = [2.0, 1.0, 1.0, 0.5]
    ratio = shards.latent_std / shards.latent_scale(1.0)
    assert np.allclose(ratio / ratio[1], [2.0, 1.0, 1.0, 0.5])
    assert np.mean(ratio**2) == pytest.approx(1)


def test_history_noise_is_as_strong_in_every_channel_as_the_channel_varies(tmp_path: Path) -> None:
    write_shards(tmp_path, [FakeClip(name="a", num_frames=160)])
    shards = TrainShards(Folder.at(tmp_path))
    shards.card["codec"]["channel_importance"] = [8.0, 1.0, 1.0, 0.5]

    def history(share: float) -> torch.Tensor:
        settings = FeedSettings(
            documents_per_step=1,
            pack_length=1024,
            condition_dropout=0.0,
            importance_power=1.0,
            history_noise_share=share,
        )
        (batch,) = Feed(shards, settings, CONFIG, ByteTokenizer(), 7).batch(0).micro_batches
        return batch.latent_inputs[batch.segment == CLEAN]

    noise = (history(1.0) - history(0.0)).std(0).numpy()
    assert np.allclose(noise / noise[1], [8.0, 1.0, 1.0, 0.5], rtol=0.3)
