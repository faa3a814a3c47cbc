"""Stored output of a codec for fixed input, which tells when a change of code changes its meaning.

A digest of the weights cannot tell it, and a version number only if someone raises it.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from model.codec.protocol import AudioCodec

_NUM_FRAMES = 3
_NUM_VALUES = 32
TOLERANCE = 2e-3
"""Largest difference, relative to the root mean square; other processors stay far below."""


def self_check(codec: AudioCodec) -> dict[str, list[float]]:
    """Evenly spaced values of the latents of a fixed waveform and of the waveform of fixed latents.

    Raises:
        ValueError: If a value is not finite.
    """
    answers = {"encode": _latents(codec), "decode": _waveform(codec)}
    found = {name: _spaced(answer) for name, answer in answers.items()}
    for name, values in found.items():
        if not all(math.isfinite(value) for value in values):
            raise ValueError(
                f"the codec's {name} gives values that are not finite; it is broken, train it again"
            )
    return found


def verify_self_check(codec: AudioCodec, stored: Any, where: str) -> None:
    """Compare a codec with its stored answer.

    Args:
        codec: In eval mode.
        stored: What `self_check` gave when the codec was saved.
        where: Name of the codec for the error.

    Raises:
        ValueError: If the answers differ.
    """
    if not isinstance(stored, dict):
        raise ValueError(f"the self-check of {where} is {stored!r}; copy the folder again")
    for name, values in self_check(codec).items():
        expected = torch.tensor(stored.get(name, []), dtype=torch.float64)
        found = torch.tensor(values, dtype=torch.float64)
        scale = float(expected.square().mean().sqrt()) + 1e-6
        worst = float("inf")
        if found.shape == expected.shape:
            worst = float((found - expected).abs().max()) / scale
        if not worst <= TOLERANCE:
            raise ValueError(
                f"the codec in {where} does not {name} as when it was saved: off by {worst:.2g} of "
                f"the root mean square, limit {TOLERANCE:g}; this version of the code reads its "
                "weights differently: use the version that saved it, or train and encode again"
            )


@torch.no_grad()
def _latents(codec: AudioCodec) -> Float[Tensor, "batch frames latent_dim"]:
    """Means of a sweep that ends within a frame, each channel its own.

    Quiet noise lies over it: what is silent would be seen as rounding, which each machine does in
    its own way.
    """
    num_samples = codec.timebase.num_samples(_NUM_FRAMES) - 1
    index = torch.arange(num_samples, dtype=torch.float64)
    position, noise = index / num_samples, 0.02 * (4e4 * torch.sin(13 * index)).frac()
    channels = [
        0.3 * torch.sin(2 * torch.pi * (5 + 20 * channel + 200 * position) * position) + noise
        for channel in range(codec.num_channels)
    ]
    return codec.encode(torch.stack(channels)[None].float()).mean


@torch.no_grad()
def _waveform(codec: AudioCodec) -> Float[Tensor, "batch channels samples"]:
    count = _NUM_FRAMES * codec.latent_dim
    values = torch.sin(1.7 * torch.arange(count, dtype=torch.float64)).float()
    return codec.decode(values.reshape(1, _NUM_FRAMES, codec.latent_dim))


def _spaced(answer: Tensor) -> list[float]:
    flat = answer.double().flatten()
    index = torch.linspace(0, len(flat) - 1, _NUM_VALUES).round().long()
    return [float(value) for value in flat[index]]
