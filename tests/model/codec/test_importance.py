"""The importance of latent channels, on a codec whose importance is known."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from model.codec.importance import channel_importance
from model.codec.registry import (
    CODEC_FILE,
    codec_digest,
    codec_importance,
    load_codec,
    save_codec,
)
from model.timebase import Timebase
from tests.factories.codec import small_codec


class LoudnessCodec:
    """Channel 0 is the logarithm of the loudness of a noise, channel 1 half of it, 2 nothing."""

    name = "loudness"
    timebase = Timebase(8000, 400)
    num_channels = 1
    latent_dim = 3
    delay_samples = 0

    def encode(self, waveform, num_samples=None, sample_rate=None): ...
    def decode_stream(self, latents, states, is_last): ...
    def initial_state(self): ...
    def config_dict(self): ...

    def decode(self, latents: Tensor) -> Tensor:
        loudness = latents @ torch.tensor([1.0, 0.5, 0.0])
        noise = torch.randn(400, generator=torch.Generator().manual_seed(0))
        return (loudness.exp()[..., None] * noise * 0.05).flatten(1)[:, None]


def test_importance_is_the_change_of_what_is_heard() -> None:
    latents = torch.randn(3, 20, 3, generator=torch.Generator().manual_seed(1))
    latents = (latents - latents.mean((0, 1))) / latents.std((0, 1))
    importance = channel_importance(LoudnessCodec(), latents)
    # A shift of all frames changes every band by that shift: 1 to 0.5 to 0.
    assert float(importance.square().mean()) == pytest.approx(1)
    assert float(importance[1] / importance[0]) == pytest.approx(0.5, rel=1e-3)
    assert float(importance[2]) == 0
    # Wider channels move further.
    wider = channel_importance(LoudnessCodec(), latents * torch.tensor([1.0, 2.0, 1.0]))
    assert float(wider[1] / wider[0]) == pytest.approx(1, rel=1e-3)


def test_a_codec_that_ignores_its_latents_is_refused() -> None:
    with pytest.raises(ValueError, match="does not change the decoded audio"):
        channel_importance(LoudnessCodec(), torch.zeros(1, 20, 3))


def test_stored_importance_leaves_the_codec_what_it_is(tmp_path: Path) -> None:
    codec = small_codec()
    save_codec(codec, tmp_path)
    digest = codec_digest(tmp_path)
    assert codec_importance(tmp_path) is None
    values = [1.0 + index for index in range(codec.latent_dim)]
    save_codec(codec, tmp_path, values)
    assert codec_importance(tmp_path) == values
    assert codec_digest(tmp_path) == digest
    assert sorted(path.name for path in tmp_path.iterdir()) == [CODEC_FILE, "model.safetensors"]
    load_codec(tmp_path)


@pytest.mark.parametrize("bad", [[1.0], [math.nan], [-1.0]])
def test_importance_needs_one_number_a_channel(tmp_path: Path, bad: list[float]) -> None:
    codec = small_codec()
    values = bad if len(bad) > 1 else bad * (codec.latent_dim if bad != [1.0] else 1)
    with pytest.raises(ValueError, match="needs one finite number"):
        save_codec(codec, tmp_path, values)


def test_the_shipped_codec_states_which_channels_are_heard() -> None:
    importance = codec_importance("shipped-tiny")
    assert importance is not None
    assert len(importance) == 64
    assert importance[0] == max(importance)
    assert sum(value**2 for value in importance) / 64 == pytest.approx(1, abs=1e-3)
