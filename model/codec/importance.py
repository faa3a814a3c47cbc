"""Perceptual importance of latent channels: the geometry that a model trains in."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from model.codec.mel import mel_filters
from model.codec.protocol import AudioCodec

NUM_MELS = 80
_WINDOW_S = 0.04
_MOVE = 0.5
"""How far a channel is moved, in its standard deviations."""
_MAX_CLIPS = 64
"""Clips that are decoded at once."""
_FLOOR = 1e-5
"""Mel magnitude below which differences are not counted: about -100 dBFS."""


@torch.no_grad()
def channel_importance(
    codec: AudioCodec, latents: Float[Tensor, "batch frames latent_dim"]
) -> Float[Tensor, " latent_dim"]:
    """Change of the decoded sound when one channel moves, relative to the mean over channels.

    The measure is the root-mean-square change of the log mel spectrogram (80 bands, natural
    logarithm) when the channel is shifted by half of its standard deviation, for half a standard
    deviation. Its mean square over the channels is scaled to 1.

    Args:
        codec: Decodes the latents.
        latents: Typical latents, some hundred frames of every kind of audio.

    Raises:
        ValueError: If moving a channel changes nothing in any of them.
    """
    std = latents.std((0, 1))
    reference = _log_mel(codec, latents)
    # Several channels a call: a decoder that runs frame by frame costs little more for them.
    shifts = torch.diag(_MOVE * std).split(max(1, _MAX_CLIPS // len(latents)))
    moved = torch.cat([_changes(codec, latents, part, reference) for part in shifts])
    size = moved.square().mean().sqrt()
    if not float(size) > 0:
        raise ValueError("moving the latents does not change the decoded audio; the codec is dead")
    return moved / size


def _changes(
    codec: AudioCodec, latents: Tensor, shifts: Tensor, reference: Tensor
) -> Float[Tensor, " shifts"]:
    moved = (latents + shifts[:, None, None]).flatten(0, 1)
    log_mel = _log_mel(codec, moved).unflatten(0, (len(shifts), -1))
    return (log_mel - reference).square().flatten(1).mean(1).sqrt()


def _log_mel(codec: AudioCodec, latents: Tensor) -> Float[Tensor, "batch mels times"]:
    rate = codec.timebase.sample_rate
    window = round(_WINDOW_S * rate)
    mono = codec.decode(latents).mean(1)
    hann = torch.hann_window(window, device=mono.device)
    spectrum = torch.stft(mono, window, window // 4, window=hann, return_complex=True)
    mel = mel_filters(NUM_MELS, window, rate).to(mono.device) @ (spectrum.abs() * 2 / window)
    return mel.clamp_min(_FLOOR).log()
