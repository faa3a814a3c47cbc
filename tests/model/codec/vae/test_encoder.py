from __future__ import annotations

import math

import pytest
import torch

from model.codec.spectrum import QUIETEST
from model.codec.vae.encoder import Encoder, SpectralStem, encoder_reach
from tests.factories.codec import PRINCIPAL, codec_config


def log_magnitudes(waveform: torch.Tensor, **changes: object) -> torch.Tensor:
    return SpectralStem(codec_config(stem="spectrum", stem_kernel=80, **changes)).log_magnitudes(
        waveform
    )


def test_spectral_stem_ignores_phase_and_knows_silence() -> None:
    assert (log_magnitudes(torch.zeros(1, 1, 400)) == math.log(QUIETEST)).all()
    time_s = torch.arange(4000) / 4000
    loudest = [
        log_magnitudes(torch.sin(2 * torch.pi * 500 * time_s + phase)[None, None])[
            ..., 20:-20, :
        ].amax(dim=-1)
        for phase in (0.0, 1.0)
    ]
    torch.testing.assert_close(*loudest, atol=1e-3, rtol=1e-3)


def test_spectral_stem_finds_the_pitch() -> None:
    time_s = torch.arange(4000) / 4000
    for pitch in (150, 500, 1000, 1700):
        logs = log_magnitudes(torch.sin(2 * torch.pi * pitch * time_s)[None, None])
        assert int(logs.mean(dim=2).argmax()) == round(pitch / 4000 * 80)


def test_each_channel_of_a_stereo_stem_is_seen_by_itself() -> None:
    waveform = torch.zeros(1, 2, 400)
    waveform[:, 1] = torch.randn(400)
    logs = log_magnitudes(waveform, num_channels=2)
    assert (logs[:, 0] == math.log(QUIETEST)).all()
    assert (logs[:, 1] > math.log(QUIETEST)).all()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"strides": [2, 5], "channels": [8, 10, 12], "stem_stride": 2},
        {"window": 20},
        PRINCIPAL,
    ],
)
def test_a_frame_depends_on_nothing_beyond_the_stated_reach(changes: dict) -> None:
    config = codec_config(**changes)
    hop_length, reach = config.timebase.hop_length, encoder_reach(config)
    frame, num_frames = reach.before + 3, reach.before + reach.after + 8
    waveform = torch.randn(1, 1, num_frames * hop_length, requires_grad=True)
    mean, log_std = Encoder(config)(waveform)
    (seen,) = torch.autograd.grad((mean + log_std)[0, frame].sum(), waveform)
    heard = seen[0, 0].nonzero().flatten() // hop_length
    assert frame - reach.before <= heard.min() < frame
    assert frame < heard.max() <= frame + reach.after
