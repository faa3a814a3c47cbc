from __future__ import annotations

import pytest
import torch

from model.codec.encoder import Encoder, SpectralStem, encoder_reach
from tests.factories.codec import codec_config


def test_spectral_stem_ignores_phase_and_knows_silence() -> None:
    stem = SpectralStem(codec_config(stem="spectrum", stem_kernel=80, channels=[10, 12]))
    assert (stem(torch.zeros(1, 1, 400)) == -3).all()
    time_s = torch.arange(4000) / 4000
    powers = [
        stem(torch.sin(2 * torch.pi * 500 * time_s + phase)[None, None])[..., 20:-20]
        for phase in (0.0, 1.0)
    ]
    # the window's side lobes leave a small ripple
    torch.testing.assert_close(*powers, atol=0.15, rtol=0.02)


def test_spectral_stem_finds_the_pitch() -> None:
    stem = SpectralStem(codec_config(stem="spectrum", stem_kernel=80, channels=[10, 12]))
    time_s = torch.arange(4000) / 4000
    loudest = [
        int(stem(torch.sin(2 * torch.pi * pitch * time_s)[None, None]).mean(dim=-1).argmax())
        for pitch in (150, 500, 1000, 1700)
    ]
    assert loudest == sorted(set(loudest))


def test_each_channel_of_a_stereo_stem_has_its_own_filters() -> None:
    config = codec_config(stem="spectrum", stem_kernel=80, channels=[10, 12], num_channels=2)
    waveform = torch.zeros(1, 2, 400)
    waveform[:, 1] = torch.randn(400)
    features = SpectralStem(config)(waveform).detach()
    assert (features[:, :5] == -3).all()
    assert (features[:, 5:] > -3).any()


@pytest.mark.parametrize(
    "changes", [{}, {"strides": [2, 5], "channels": [8, 10, 12], "stem_stride": 2}, {"window": 20}]
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


def test_filters_that_do_not_divide_among_channels_are_refused() -> None:
    config = codec_config(stem="spectrum", channels=[9, 12], num_channels=2)
    with pytest.raises(ValueError, match="9 spectral filters"):
        SpectralStem(config)
