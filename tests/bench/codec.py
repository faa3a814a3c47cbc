"""Encode and decode of the tiny codec with random weights."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from model.codec.protocol import AudioCodec
from model.codec.registry import build_codec, codec_preset
from tests.bench.measure import Row, compare

DURATION_S = 10.0
BATCH = 8
FRAMES_PER_BLOCK = 4


@torch.inference_mode()
def rows(repeats: int) -> Iterator[Row]:
    """Batch against one by one, streamed against offline."""
    torch.manual_seed(0)
    codec = build_codec(codec_preset("tiny"))
    samples = codec.timebase.samples_in(DURATION_S)
    waveform = 0.1 * torch.randn(BATCH, codec.num_channels, samples)
    latents = codec.encode(waveform).mean

    def speed(seconds: float) -> str:
        return f"{BATCH * DURATION_S / seconds:.0f} audio-seconds per second"

    yield compare(
        f"encode, tiny, {BATCH} x {DURATION_S:g} s in one batch",
        lambda: codec.encode(waveform),
        "one clip after the other",
        lambda: [codec.encode(clip[None]) for clip in waveform],
        repeats,
        speed,
    )
    yield compare(
        f"decode, tiny, {BATCH} x {DURATION_S:g} s in one batch",
        lambda: codec.decode(latents),
        "one clip after the other",
        lambda: [codec.decode(clip[None]) for clip in latents],
        repeats,
        speed,
    )
    yield compare(
        f"streamed decode, tiny, {BATCH} requests, {FRAMES_PER_BLOCK} frames at a time",
        lambda: stream(codec, latents),
        "offline decode of the whole",
        lambda: codec.decode(latents),
        repeats,
        speed,
    )


def stream(codec: AudioCodec, latents: torch.Tensor) -> None:
    """Decode all requests block by block."""
    states = [codec.initial_state() for _ in latents]
    blocks = latents.split(FRAMES_PER_BLOCK, dim=1)
    for number, block in enumerate(blocks, 1):
        is_last = [number == len(blocks)] * len(latents)
        _, states = codec.decode_stream(block, states, is_last)
