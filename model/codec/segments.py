"""Long waveforms and streams of codecs that look ahead: overlapping windows that change nothing.

A network of convolutions and windowed attention gives the same value for a frame whatever lies out
of its reach. So a window that is longer than what is kept of it by that reach, on either side,
gives exactly what the whole would, up to the rounding of sums in another order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from model.codec.protocol import AudioCodec, Posterior
from model.timebase import Timebase

SEGMENT_S = 30.0
"""Audio that is encoded at once, seconds; what a longer waveform needs in memory."""


_FRAMES_PER_PIECE = 64


@dataclass(frozen=True)
class Reach:
    """Latent frames around one frame that it depends on.

    Attributes:
        before: Frames before it.
        after: Frames after it; 0 is causal.
    """

    before: int
    after: int


def encode_in_segments(
    waveform: Float[Tensor, "batch channels samples"],
    num_samples: Int[Tensor, " batch"] | None,
    encode: Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]],
    timebase: Timebase,
    reach: Reach,
) -> Posterior:
    """Posterior of a waveform of any length, in the memory of one segment.

    Args:
        waveform: At the codec's rate.
        num_samples: Valid samples of each row; None is all.
        encode: Mean and log standard deviation of one segment; valid samples of a row may be 0.
        timebase: Rates of the codec.
        reach: Receptive field of the encoder.
    """
    total, hop_length = timebase.num_frames(waveform.shape[-1]), timebase.hop_length
    kept = timebase.frames_in(SEGMENT_S)
    if total <= kept + reach.before + reach.after:
        return Posterior(*encode(waveform, num_samples))
    parts = []
    for start in range(0, total, kept):
        stop = min(start + kept, total)
        first, last = max(0, start - reach.before), min(total, stop + reach.after)
        segment = waveform[..., first * hop_length : last * hop_length]
        valid = None
        if num_samples is not None:
            valid = (num_samples - first * hop_length).clamp(0, segment.shape[-1])
        inner = slice(start - first, stop - first)
        parts.append([part[:, inner].clone() for part in encode(segment, valid)])
    mean, log_std = (torch.cat(part, dim=1) for part in zip(*parts, strict=True))
    return Posterior(mean, log_std)


def decode_in_pieces(
    codec: AudioCodec, latents: Float[Tensor, "batch frames latent_dim"]
) -> Float[Tensor, "batch channels samples"]:
    """Offline decode as a stream of pieces: memory beyond the result does not grow with it."""
    states = [codec.initial_state() for _ in range(latents.shape[0])]
    pieces = []
    chunks = latents.split(_FRAMES_PER_PIECE, dim=1) if latents.shape[1] else [latents]
    for index, chunk in enumerate(chunks):
        is_last = [index == len(chunks) - 1] * len(states)
        rows, states = codec.decode_stream(chunk, states, is_last)
        pieces.append(torch.stack(rows))
    return torch.cat(pieces, dim=-1)


@dataclass(frozen=True)
class WindowState:
    """State that a decoder with look-ahead carries from piece to piece of one request.

    Attributes:
        latents: The frames still needed: context that was decoded, then what waits for its future.
        num_waiting: Frames at the end of `latents` that were not decoded yet.
    """

    latents: Float[Tensor, "frames latent_dim"]
    num_waiting: int


def decode_windows(
    latents: Float[Tensor, "batch frames latent_dim"],
    states: Sequence[WindowState],
    is_last: Sequence[bool],
    decode: Callable[[Tensor], Tensor],
    reach: Reach,
    *,
    hop_length: int,
    num_channels: int,
) -> tuple[list[Float[Tensor, "channels samples"]], list[WindowState]]:
    """Next piece of each request, by decoding its new frames again with those around them.

    A frame is given once the `reach.after` frames behind it are there. Requests whose windows have
    the same shape are decoded in one batch.

    Args:
        latents: New frames.
        states: State of each request.
        is_last: Whether a request ends here; then it has no later frames.
        decode: Waveform `batch channels samples` of whole windows.
        reach: Receptive field of the decoder.
        hop_length: Samples a frame.
        num_channels: Waveform channels.
    """
    windows: list[Tensor] = []
    groups: dict[tuple[int, int, int], list[int]] = {}
    for row, state in enumerate(states):
        window = torch.cat([state.latents, latents[row]])
        start = len(state.latents) - state.num_waiting
        end = max(start, len(window) - (0 if is_last[row] else reach.after))
        windows.append(window)
        groups.setdefault((start, end, len(window)), []).append(row)
    pieces: list[Tensor] = [latents.new_zeros(num_channels, 0)] * len(windows)
    following = list(states)
    for (start, end, length), rows in groups.items():
        for row in rows:
            first = max(0, end - reach.before)
            following[row] = WindowState(windows[row][first:].clone(), length - end)
        if start == end:
            continue
        decoded = decode(torch.stack([windows[row] for row in rows]))
        for row, waveform in zip(rows, decoded, strict=True):
            pieces[row] = waveform[:, start * hop_length : end * hop_length].clone()
    return pieces, following
