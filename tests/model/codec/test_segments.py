"""Windows of a decoder that looks ahead, on a small one of three convolutions."""

from __future__ import annotations

import random

import pytest
import torch
from torch import nn

from model.codec.protocol import AudioCodec
from model.codec.published.windowed import WindowedCodec
from model.codec.segments import Reach
from model.timebase import Timebase
from tests.factories.codec import joined_streams

HOP = 4
TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}
"""Float32 sums in another order."""


class Convolutions(WindowedCodec):
    """Two convolutions of three latent frames each way, one of which sees further back."""

    name = "convolutions"

    def __init__(self, reach: Reach | None = None) -> None:
        network = nn.ModuleDict(
            {
                "analyse": nn.Conv1d(2, 2 * 3, 3 * HOP, stride=HOP, padding=HOP),
                "mix": nn.Conv1d(3, 8, 4),
                "spread": nn.Conv1d(8, 2 * HOP, 3, padding=1),
            }
        )
        reach = reach or Reach(before=3, after=2)
        super().__init__(network, Timebase(400, HOP), 2, 3, Reach(before=1, after=1), reach)

    def config_dict(self):
        return {"name": self.name}

    def _posterior(self, waveform):
        return self.network["analyse"](waveform).transpose(1, 2).chunk(2, dim=-1)

    def _waveform(self, latents):
        mixed = self.network["mix"](nn.functional.pad(latents.transpose(1, 2), (2, 1))).tanh()
        spread = self.network["spread"](mixed)
        return spread.reshape(len(latents), 2, HOP, -1).transpose(2, 3).flatten(2)


def test_it_is_an_audio_codec_that_says_its_delay() -> None:
    codec = Convolutions()
    assert isinstance(codec, AudioCodec)
    assert codec.delay_samples == 2 * HOP
    (piece,), _ = codec.decode_stream(torch.randn(1, 7, 3), [codec.initial_state()], [False])
    assert piece.shape == (2, 5 * HOP)


@pytest.mark.parametrize("seed", range(5))
def test_streams_that_join_and_leave_equal_the_network_alone(seed: int) -> None:
    codec, draw = Convolutions(), random.Random(seed)
    latents = [torch.randn(draw.randint(1, 15), 3) for _ in range(8)]
    streamed = joined_streams(codec, latents, draw)
    for waveform, frames in zip(streamed, latents, strict=True):
        torch.testing.assert_close(waveform, codec._waveform(frames[None])[0], **TOLERANCE)


def test_less_context_than_the_reach_is_heard() -> None:
    codec, draw = Convolutions(Reach(before=2, after=2)), random.Random(0)
    latents = [torch.randn(15, 3)]
    (waveform,) = joined_streams(codec, latents, draw)
    assert (waveform - codec._waveform(latents[0][None])[0]).abs().max() > 1e-3


def test_requests_in_step_are_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    codec, batches = Convolutions(), []
    inner = codec._waveform
    monkeypatch.setattr(codec, "_waveform", lambda z: batches.append(len(z)) or inner(z))
    states = [codec.initial_state() for _ in range(5)]
    for index in range(4):
        is_last = [index == 3] * 5
        _, states = codec.decode_stream(torch.randn(5, 4, 3), states, is_last)
    assert batches == [5, 5, 5, 5]


def test_an_empty_stream_is_no_samples() -> None:
    codec = Convolutions()
    (piece,), _ = codec.decode_stream(torch.zeros(1, 0, 3), [codec.initial_state()], [True])
    assert piece.shape == (2, 0)
    assert codec.decode(torch.zeros(1, 0, 3)).shape == (1, 2, 0)


def test_padding_and_segments_change_no_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = Convolutions()
    lengths = [97, 1, 3, 50]
    waveform = torch.randn(4, 2, 97)
    whole = codec.encode(waveform, torch.tensor(lengths))
    monkeypatch.setattr("model.codec.segments.SEGMENT_S", 0.05)
    for row, length in enumerate(lengths):
        alone = codec.encode(waveform[row : row + 1, :, :length])
        assert alone.mean.shape[1] == codec.timebase.num_frames(length)
        for name in ("mean", "log_std"):
            found = getattr(whole, name)[row : row + 1, : alone.mean.shape[1]]
            torch.testing.assert_close(found, getattr(alone, name), **TOLERANCE)


def test_a_network_of_many_channels_is_refused() -> None:
    class Surround(Convolutions):
        def __init__(self) -> None:
            WindowedCodec.__init__(
                self, nn.Identity(), Timebase(400, HOP), 6, 3, Reach(1, 1), Reach(1, 1)
            )

    with pytest.raises(ValueError, match="6 channels"):
        Surround()
