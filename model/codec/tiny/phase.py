"""Phases that follow from magnitudes: nothing about them is coded, and nothing is learned.

The phase of a short-time Fourier transform is, up to a constant, an integral of the logarithm of
its magnitude: the slope along frequency tells how far a tone lies from the centre of its bin, the
slope along time how far an event lies from the centre of its frame. Around a peak of the spectrum a
frame takes its phases from the frame before it, each bin asking itself and its two neighbours, the
loudest counting most: partials stay locked to each other. Where the spectrum is smooth there is
noise, and bins take their phases from a noise that is always the same. So
rounding stays rounding, and pieces of any length join. Where a voice is known, its pulses come
first.

Source:
    Phase gradient heap integration: Prusa, Balazs, Sondergaard, IEEE/ACM TASLP 25(5), 2017,
    section III, and in real time: Prusa, Sondergaard, DAFx 2016. The heap, which takes one bin
    after the other, is replaced by the mean over neighbours, and smooth spectra are noise.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor
from torch.nn import functional as F

from model.codec.tiny.pulse import Pulses

_HANN = 0.25645
"""Time-frequency ratio of the Gaussian most like a Hann window, over its length squared."""
_NUM_NOISE_FRAMES = 1024
"""Frames after which the noise repeats."""
_SEED = 20170501
_LEVEL = 1.12
"""Magnitude of the noise: what latents tell are about means of logarithms, and noise that does not
fluctuate with its magnitudes has to lie above them to be as loud."""
_AROUND = 11
"""Bins whose mean a peak is compared with: some main lobes of a Hann window."""
_NOISY, _TONAL = 0.7, 1.2
"""How far a peak stands out of its surroundings, nats: up to the first all is noise, from the
second on all is tone."""


def initial_phases(num_channels: int, num_bins: int) -> Float[Tensor, "3 channels bins"]:
    """State before the first frame: cosine and sine of phases, and no log magnitudes (infinity)."""
    state = torch.ones(3, num_channels, num_bins)
    state[1] = 0.0
    state[2] = math.inf
    return state


def noise_spectra(window_length: int, hop_length: int) -> Complex[Tensor, "frames bins"]:
    """Spectra of a periodic noise, levelled to one magnitude; the same in every process.

    Latents carry the magnitudes and part of their fluctuations already; frames that overlap bring
    back the rest.
    """
    generator = torch.Generator().manual_seed(_SEED)
    noise = torch.randn(_NUM_NOISE_FRAMES * hop_length, generator=generator)
    window = torch.hann_window(window_length)
    around = torch.cat([noise, noise[:window_length]]).unfold(0, window_length, hop_length)
    return _LEVEL * torch.fft.rfft(around[:_NUM_NOISE_FRAMES] * window).sgn()


def tonality(
    log_magnitude: Float[Tensor, "batch channels seq bins"],
) -> Float[Tensor, "batch channels seq bins"]:
    """Share of a tone in each bin, 0 to 1, by how far the spectrum stands out next to it."""
    rows = log_magnitude.flatten(0, 2)[:, None]
    half = _AROUND // 2
    mean = F.avg_pool1d(F.pad(rows, (half, half), mode="replicate"), _AROUND, stride=1)
    stands_out = F.max_pool1d(rows, 3, stride=1, padding=1) - mean
    share = ((stands_out - _NOISY) / (_TONAL - _NOISY)).clamp(0, 1)
    return share[:, 0].unflatten(0, log_magnitude.shape[:3])


@torch.no_grad()
def excitation(
    log_magnitude: Float[Tensor, "batch channels seq bins"],
    noise: Complex[Tensor, "frames bins"],
    state: Float[Tensor, "batch 3 channels bins"],
    num_before: Int[Tensor, " batch"] | None,
    window_length: int,
    hop_length: int,
    pulses: Pulses | None = None,
) -> tuple[Complex[Tensor, "batch channels seq bins"], Float[Tensor, "batch 3 channels bins"]]:
    """Factors of the magnitudes: unit phasors of pulses and tones, noise elsewhere.

    Args:
        log_magnitude: Natural logarithms, of frames whose time is counted from their start, under a
            Hann window.
        noise: From `noise_spectra`.
        state: After the frames before these, or `initial_phases` for each row.
        num_before: Frames of each row before these; None is the beginning.
        window_length: Samples of a frame.
        hop_length: Samples between frames.
        pulses: Those of the voice, if one is known.

    Returns:
        The excitation, and the state after these frames.
    """
    cosine, sine, before = state.unbind(1)
    before = torch.where(before.isinf(), log_magnitude[:, :, 0], before)
    joined = torch.cat([before[:, :, None], log_magnitude], dim=2)
    votes = _votes(joined, window_length, hop_length)
    share = tonality(log_magnitude)
    frame = torch.arange(log_magnitude.shape[2], device=log_magnitude.device)[None]
    if num_before is not None:
        frame = frame + num_before[:, None]
    fixed = (1 - share) * noise[frame % len(noise)][:, None]
    if pulses is not None:
        voiced = pulses.share[:, None]
        share = (1 - voiced) * share
        fixed = voiced * pulses.phasor[:, None] + (1 - voiced) * fixed
    # One frame follows from the other: the loop is long and its operations are few and small.
    padded = F.pad(torch.view_as_real(torch.complex(cosine, sine)), (0, 0, 1, 1))
    padded = torch.view_as_complex(padded)
    phasor, around = padded[..., 1:-1], padded.unfold(-1, cosine.shape[-1], 1)
    excited = []
    for vote, tone, rest in zip(
        votes.unbind(2), share.to(fixed.dtype).unbind(2), fixed.unbind(2), strict=True
    ):
        heard = (vote * around).sum(dim=-2)
        mixed = torch.addcmul(rest, tone, heard.sgn())
        excited.append(mixed)
        phasor.copy_(mixed.sgn())
    after = torch.stack([phasor.real, phasor.imag, log_magnitude[:, :, -1]], dim=1)
    return torch.stack(excited, dim=2), after


def _votes(
    joined: Float[Tensor, "batch channels frames bins"], window_length: int, hop_length: int
) -> Complex[Tensor, "batch channels seq 3 bins"]:
    """Rotations that turn phasors of bins m - 1, m, m + 1 of a frame into votes for the next m."""
    ratio = _HANN * window_length / hop_length
    slope = F.pad((joined[..., 2:] - joined[..., :-2]) / 2, (1, 1)) / ratio
    index = torch.arange(joined.shape[-1], device=joined.device)
    steady = (2 * torch.pi / window_length) * (index * hop_length % window_length).float()
    ahead = steady + (slope[:, :, 1:] + slope[:, :, :-1]) / 2
    rise = -torch.pi - ratio * (joined[:, :, 1:] - joined[:, :, :-1])
    sideways = (rise[..., 1:] + rise[..., :-1]) / 2
    turns = [
        F.pad(ahead[..., :-1] + sideways, (1, 0)),
        ahead,
        F.pad(ahead[..., 1:] - sideways, (0, 1)),
    ]
    level = (joined[:, :, 1:] + joined[:, :, :-1]) / 2
    levels = F.pad(level, (1, 1), value=-math.inf).unfold(-1, level.shape[-1], 1)
    loudness = (2 * (levels - levels.amax(dim=-2, keepdim=True))).exp()
    return torch.polar(loudness, torch.stack(turns, dim=-2))
