from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from model.codec.protocol import AudioCodec
from model.codec.vae.vae import VAECodec
from tests.factories.codec import PRINCIPAL, joined_streams, small_codec

ROOT = Path(__file__).parents[3]
VARIANTS = {
    "mono": {},
    "stereo": {"num_channels": 2},
    "spectrum": {"stem": "spectrum"},
    "propagated_stereo": {"num_channels": 2, "head_phase": "propagated"},
    "principal": {**PRINCIPAL, "num_channels": 2},
    "odd_strides": {"stem_stride": 3, "strides": [2, 5], "channels": [8, 10, 12], "head_hop": 10},
}
TOLERANCE = {"atol": 1e-4, "rtol": 1e-4}
"""Float32 sums in another order; latents and samples are of the order of one."""


@pytest.fixture(params=VARIANTS)
def codec(request: pytest.FixtureRequest) -> VAECodec:
    return small_codec(**VARIANTS[request.param])


def stream(codec: VAECodec, latents: torch.Tensor, sizes: list[int]) -> torch.Tensor:
    state, pieces = codec.initial_state(), []
    for index, chunk in enumerate(latents.split(sizes, dim=1)):
        (piece,), (state,) = codec.decode_stream(chunk, [state], [index == len(sizes) - 1])
        pieces.append(piece)
    return torch.cat(pieces, dim=-1)


def test_is_an_audio_codec(codec: VAECodec) -> None:
    assert isinstance(codec, AudioCodec)


@pytest.mark.parametrize("extra", [-1, 0, 1])
@pytest.mark.parametrize("frames", [1, 3])
def test_lengths_are_exact(codec: VAECodec, frames: int, extra: int) -> None:
    num_samples = frames * codec.timebase.hop_length + extra
    posterior = codec.encode(torch.randn(2, codec.num_channels, num_samples))
    expected = codec.timebase.num_frames(num_samples)
    assert posterior.mean.shape == posterior.log_std.shape == (2, expected, codec.latent_dim)
    decoded = codec.decode(posterior.mean)
    assert decoded.shape == (2, codec.num_channels, expected * codec.timebase.hop_length)
    assert decoded.isfinite().all()


@pytest.mark.parametrize("num_samples", [1, 2, 79])
def test_very_short_and_silent_input_is_one_finite_frame(codec: VAECodec, num_samples: int) -> None:
    for waveform in (torch.zeros(1, codec.num_channels, num_samples), None):
        given = torch.ones(1, codec.num_channels, num_samples) if waveform is None else waveform
        posterior = codec.encode(given)
        assert posterior.mean.shape[1] == 1
        assert posterior.mean.isfinite().all()
        assert codec.decode(posterior.mean).isfinite().all()


def test_padding_never_changes_a_row(codec: VAECodec) -> None:
    hop = codec.timebase.hop_length
    lengths = [hop * 9 + 1, 1, hop, hop * 3 - 1, hop * 30 + 5, hop * 2, hop * 12, 40]
    waveform = torch.randn(len(lengths), codec.num_channels, max(lengths))
    together = codec.encode(waveform, torch.tensor(lengths))
    for row, length in enumerate(lengths):
        alone = codec.encode(waveform[row : row + 1, :, :length])
        valid = alone.mean.shape[1]
        for name in ("mean", "log_std"):
            found = getattr(together, name)[row : row + 1, :valid]
            torch.testing.assert_close(found, getattr(alone, name), **TOLERANCE)


def test_padding_does_not_change_the_result(codec: VAECodec) -> None:
    waveform = torch.randn(1, codec.num_channels, 400).repeat(2, 1, 1)
    waveform[1, :, 250:] = float("nan")
    posterior = codec.encode(waveform, torch.tensor([250, 250]))
    valid = codec.timebase.num_frames(250)
    torch.testing.assert_close(posterior.mean[0, :valid], posterior.mean[1, :valid])


@pytest.mark.parametrize(
    "sizes", [[12], [1] * 12, [5, 7], [7, 5], [1, 11], [0, 4, 0, 8, 0], [3, 1, 1, 4, 2, 1]]
)
def test_pieces_joined_equal_the_whole(codec: VAECodec, sizes: list[int]) -> None:
    latents = torch.randn(1, 12, codec.latent_dim)
    whole = codec.decode(latents)[0]
    torch.testing.assert_close(stream(codec, latents, sizes), whole, **TOLERANCE)


def test_requests_join_and_leave_a_batch_in_any_chunking(codec: VAECodec) -> None:
    draw = random.Random(7)
    latents = [torch.randn(draw.randint(1, 20), codec.latent_dim) for _ in range(9)]
    for waveform, frames in zip(joined_streams(codec, latents, draw), latents, strict=True):
        torch.testing.assert_close(waveform, codec.decode(frames[None])[0], **TOLERANCE)


def test_the_stream_is_late_by_the_stated_delay(codec: VAECodec) -> None:
    latents = torch.randn(1, 5, codec.latent_dim)
    (piece,), _ = codec.decode_stream(latents, [codec.initial_state()], [False])
    assert piece.shape[-1] == codec.timebase.num_samples(5) - codec.delay_samples


def test_long_waveforms_are_encoded_in_segments_without_a_seam(
    codec: VAECodec, monkeypatch: pytest.MonkeyPatch
) -> None:
    length = 61 * codec.timebase.hop_length - 7
    waveform = torch.randn(3, codec.num_channels, length)
    num_samples = torch.tensor([length, 5, length // 2])
    whole = codec.encode(waveform, num_samples)
    encoded = []
    inner = codec._posterior
    monkeypatch.setattr(codec, "_posterior", lambda *a: encoded.append(a[0].shape[-1]) or inner(*a))
    monkeypatch.setattr("model.codec.segments.SEGMENT_S", 0.2)
    pieces = codec.encode(waveform, num_samples)
    assert len(encoded) > 5
    assert max(encoded) < length / 2
    for row, count in enumerate(num_samples):
        valid = codec.timebase.num_frames(int(count))
        for name in ("mean", "log_std"):
            found, expected = getattr(pieces, name)[row], getattr(whole, name)[row]
            torch.testing.assert_close(found[:valid], expected[:valid], **TOLERANCE)


def test_requests_at_different_places_share_a_batch(codec: VAECodec) -> None:
    latents = torch.randn(3, 8, codec.latent_dim)
    starts = [0, 3, 5]
    states, joined = [codec.initial_state() for _ in starts], [[] for _ in starts]
    position = [0, 0, 0]
    for step in range(13):
        rows = [i for i, start in enumerate(starts) if start <= step < start + 8]
        if not rows:
            continue
        chunk = torch.stack([latents[i, position[i] : position[i] + 1] for i in rows])
        is_last = [position[i] == 7 for i in rows]
        pieces, after = codec.decode_stream(chunk, [states[i] for i in rows], is_last)
        for i, piece, state in zip(rows, pieces, after, strict=True):
            joined[i].append(piece)
            states[i] = state
            position[i] += 1
    whole = codec.decode(latents)
    for i, pieces in enumerate(joined):
        torch.testing.assert_close(torch.cat(pieces, dim=-1), whole[i], **TOLERANCE)


def test_a_state_is_a_value_that_can_be_used_twice(codec: VAECodec) -> None:
    latents = torch.randn(1, 6, codec.latent_dim)
    _, (state,) = codec.decode_stream(latents[:, :3], [codec.initial_state()], [False])
    first, _ = codec.decode_stream(latents[:, 3:], [state], [True])
    second, _ = codec.decode_stream(latents[:, 3:], [state], [True])
    assert torch.equal(first[0], second[0])


def test_long_decodes_are_cut_into_pieces_without_a_seam(codec: VAECodec) -> None:
    latents = torch.randn(1, 150, codec.latent_dim)
    torch.testing.assert_close(codec.decode(latents), codec.decoder(latents).detach(), **TOLERANCE)


def test_an_empty_stream_is_no_samples(codec: VAECodec) -> None:
    empty = torch.zeros(1, 0, codec.latent_dim)
    (piece,), _ = codec.decode_stream(empty, [codec.initial_state()], [True])
    assert piece.shape == (codec.num_channels, 0)
    assert codec.decode(empty).shape == (1, codec.num_channels, 0)


def test_the_decoder_is_causal_and_the_encoder_is_not(codec: VAECodec) -> None:
    latents = torch.randn(1, 6, codec.latent_dim, requires_grad=True)
    waveform = codec.decoder(latents)
    delay = (codec.config.head_window - codec.config.head_hop) // 2
    early = waveform[..., : 3 * codec.timebase.hop_length - delay]
    (seen,) = torch.autograd.grad(early.sum(), latents)
    assert seen[0].abs().sum(dim=-1).nonzero().flatten().tolist() == [0, 1, 2]
    heard = torch.randn(1, codec.num_channels, 6 * codec.timebase.hop_length, requires_grad=True)
    mean, _ = codec.encoder(heard)
    (seen,) = torch.autograd.grad(mean[0, 0].sum(), heard)
    assert seen[..., codec.timebase.hop_length :].any()


def test_a_wrong_channel_count_names_both(codec: VAECodec) -> None:
    with pytest.raises(ValueError, match="waveform has 3 channels, the codec"):
        codec.encode(torch.zeros(1, 3, 100))


def test_a_wrong_rate_names_both(codec: VAECodec) -> None:
    waveform = torch.zeros(1, codec.num_channels, 100)
    codec.encode(waveform, sample_rate=4000)
    with pytest.raises(ValueError, match="waveform has 44100 Hz, the codec 4000; resample"):
        codec.encode(waveform, sample_rate=44_100)


@pytest.mark.parametrize("shape", [(1, 0), (0, 100)])
def test_an_empty_waveform_is_refused(codec: VAECodec, shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="is empty"):
        codec.encode(torch.zeros(shape[0], codec.num_channels, shape[1]))


@pytest.mark.parametrize("length", [0, 101])
def test_lengths_outside_the_waveform_are_refused(codec: VAECodec, length: int) -> None:
    with pytest.raises(ValueError, match="must lie in"):
        codec.encode(torch.zeros(1, codec.num_channels, 100), torch.tensor([length]))


def test_every_row_needs_a_state(codec: VAECodec) -> None:
    latents = torch.zeros(2, 1, codec.latent_dim)
    with pytest.raises(ValueError, match="2 rows of latents, 1 states"):
        codec.decode_stream(latents, [codec.initial_state()], [True, True])


def test_every_parameter_is_trained(codec: VAECodec) -> None:
    mean, log_std = codec.encoder(torch.randn(1, codec.num_channels, 480))
    codec.decoder(mean + log_std.exp()).square().sum().backward()
    assert not {name for name, value in codec.named_parameters() if value.grad is None}


def test_seed_alone_decides_the_weights() -> None:
    first, same, other = small_codec(seed=1), small_codec(seed=1), small_codec(seed=2)
    torch.manual_seed(5)
    assert torch.equal(first.encoder.cls.weight, same.encoder.cls.weight)
    assert not torch.equal(first.encoder.cls.weight, other.encoder.cls.weight)


_PEAKS = """
import resource, torch
from tests.factories.codec import small_codec

torch.set_num_threads(1)
codec = small_codec()
for minutes in (1, 5):
    samples = codec.timebase.samples_in(60 * minutes)
    waveform = 0.1 * torch.randn(1, 1, samples)
    assert codec.decode(codec.encode(waveform).mean).shape[-1] >= samples
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""
"""In a process of its own, whose peak is not that of other tests."""


@pytest.mark.slow
def test_five_minutes_need_little_more_memory_than_one() -> None:
    command = [sys.executable, "-c", _PEAKS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True)
    one, five = (int(peak) for peak in done.stdout.split())
    waveform_bytes = 4 * 60 * 4_000 * 4
    # The waveform itself, its reconstruction, and once more while pieces of it are joined; one
    # layer's activations of the whole would be some five times that.
    assert five - one < 4 * waveform_bytes
