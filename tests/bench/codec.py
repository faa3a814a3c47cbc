"""Encode and decode of the tiny codec with random weights, beside Oobleck of like size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from model.codec.protocol import AudioCodec
from model.codec.published.oobleck import OobleckCodec
from model.codec.registry import build_codec, codec_preset
from tests.bench.measure import Row, compare

DURATION_S = 10.0
BATCH = 8
SIZES = ((1, 1.0), (8, 1.0), (1, 10.0), (8, 10.0), (1, 60.0), (8, 60.0))
"""Clips in a batch, and seconds of each; smallest first."""
FRAMES_PER_BLOCK = 4
_FEW_S = 50.0
"""From this much audio on, one pair is timed, and no warm-up: Oobleck needs minutes."""


@torch.inference_mode()
def rows(repeats: int) -> Iterator[Row]:
    """Against one by one, streamed against offline, and against Oobleck by batch and length."""
    torch.manual_seed(0)
    codec = build_codec(codec_preset("tiny"))
    yield from _tiny(codec, repeats)
    oobleck = like_oobleck(codec)
    sizes = [sum(value.numel() for value in c.parameters()) for c in (codec, oobleck)]
    names = (f"tiny ({sizes[0] / 1e6:.2f} M)", f"Oobleck ({sizes[1] / 1e6:.2f} M)")
    yield _streamed(oobleck, f"{names[1]}, windows", BATCH // 2, 4.0, repeats)
    for batch, duration_s in SIZES:
        yield from _beside(codec, oobleck, names, batch, duration_s, repeats)


def like_oobleck(codec: AudioCodec) -> OobleckCodec:
    """Oobleck of the codec's rates, with about as many parameters."""
    assert isinstance(codec, nn.Module)
    wanted = sum(value.numel() for value in codec.parameters())
    for width in range(4, 256, 2):
        values = _oobleck_config(codec, width)
        with torch.device("meta"):
            built = build_codec(values)
        assert isinstance(built, nn.Module)
        if sum(value.numel() for value in built.parameters()) >= wanted:
            break
    found = build_codec(values)
    assert isinstance(found, OobleckCodec)
    return found


def _oobleck_config(codec: AudioCodec, width: int) -> dict[str, Any]:
    network = {
        "encoder_hidden_size": width,
        "downsampling_ratios": [2, 4, 8, 10],
        "channel_multiples": [1, 2, 4, 8],
        "decoder_channels": width,
        "decoder_input_channels": width // 2,
        "audio_channels": codec.num_channels,
        "sampling_rate": codec.timebase.sample_rate,
    }
    return {"name": "oobleck", "frames_stacked": 1, "network": network}


def _tiny(codec: AudioCodec, repeats: int) -> Iterator[Row]:
    waveform = 0.1 * torch.randn(BATCH, codec.num_channels, codec.timebase.samples_in(DURATION_S))
    latents = codec.encode(waveform).mean
    yield compare(
        f"encode, tiny, {BATCH} x {DURATION_S:g} s in one batch",
        lambda: codec.encode(waveform),
        "one clip after the other",
        lambda: [codec.encode(clip[None]) for clip in waveform],
        repeats,
        _speed,
    )
    yield compare(
        f"decode, tiny, {BATCH} x {DURATION_S:g} s in one batch",
        lambda: codec.decode(latents),
        "one clip after the other",
        lambda: [codec.decode(clip[None]) for clip in latents],
        repeats,
        _speed,
    )
    yield _streamed(codec, "tiny", BATCH, DURATION_S, repeats)


def _streamed(codec: AudioCodec, name: str, batch: int, duration_s: float, repeats: int) -> Row:
    latents = torch.randn(batch, codec.timebase.frames_in(duration_s), codec.latent_dim)
    return compare(
        f"streamed decode, {name}, {batch} requests, {FRAMES_PER_BLOCK} frames at a time",
        lambda: stream(codec, latents),
        "offline decode of the whole",
        lambda: codec.decode(latents),
        repeats,
        lambda seconds: f"{batch * duration_s / seconds:.1f} audio-seconds per second",
    )


def _beside(
    codec: AudioCodec,
    oobleck: OobleckCodec,
    names: tuple[str, str],
    batch: int,
    duration_s: float,
    repeats: int,
) -> Iterator[Row]:
    """The library's own network, without the adapter around it."""
    waveform = 0.1 * torch.randn(batch, codec.num_channels, codec.timebase.samples_in(duration_s))
    latents = codec.encode(waveform).mean
    theirs = torch.randn(batch, oobleck.latent_dim, latents.shape[1])

    def factor(seconds: float) -> str:
        return f"RTF {seconds / (batch * duration_s):.5f}"

    is_long = batch * duration_s >= _FEW_S
    pairs = 1 if is_long else repeats
    yield compare(
        f"encode, {names[0]}, {batch} x {duration_s:g} s",
        lambda: codec.encode(waveform),
        names[1],
        lambda: oobleck.network.encode(waveform),
        pairs,
        factor,
        warms_up=not is_long,
    )
    yield compare(
        f"decode, {names[0]}, {batch} x {duration_s:g} s",
        lambda: codec.decode(latents),
        names[1],
        lambda: oobleck.network.decode(theirs),
        pairs,
        factor,
        warms_up=not is_long,
    )


def _speed(seconds: float) -> str:
    return f"{BATCH * DURATION_S / seconds:.0f} audio-seconds per second"


def stream(codec: AudioCodec, latents: torch.Tensor) -> None:
    """Decode all requests block by block."""
    states = [codec.initial_state() for _ in latents]
    blocks = latents.split(FRAMES_PER_BLOCK, dim=1)
    for number, block in enumerate(blocks, 1):
        is_last = [number == len(blocks)] * len(latents)
        _, states = codec.decode_stream(block, states, is_last)
