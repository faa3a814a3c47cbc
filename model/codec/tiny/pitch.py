"""Pitch as a codec carries it: one line per latent frame, and the comb of partials that it means.

Phases and fine structure are not coded, but whether a voice has a pitch, and which, is heard at
once. It is measured, not learned: a small network finds a comb of forty partials only after many
hours.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

_LOWEST_HZ, _HIGHEST_HZ = 65.0, 450.0
_LEAST_BINS = 2.6
"""Distance of partials, bins, from which a Hann window tells them apart."""
_CANDIDATES = 160
_SLOPES = 9
"""Candidates that a pitch may rise or fall within one latent frame."""
_STEADY = 0.002
"""What a candidate of slope must gain over a steadier one."""
_VALLEY = 0.2
"""Magnitude between partials, relative to them: deeper valleys are filled by what moves."""
_AROUND = 21
"""Bins over which the envelope is averaged that a comb must stand out of."""
_TOP_HZ, _TILT_HZ = 5000.0, 3000.0
"""Partials above are not asked for the pitch; those above the second count less and less."""
_UNVOICED, _VOICED = 0.3, 0.5
"""Likeness to a comb up to which there is no pitch, and from which it is clear."""
_CENTRE, _SCALE = (0.0, 0.0, 0.2), (0.5, 0.05, 0.12)
"""What latents of pitch, slope and likeness are centred and scaled by: octaves, octaves a latent
frame, and the cosine of an angle."""

NUM_PITCH_LATENTS = 3


class Pitch(NamedTuple):
    """Pitch of latent frames.

    Attributes:
        octave: Mean pitch, octaves from the middle of the range; 0 without pitch.
        slope: Rise from the start to the end of the latent frame, octaves; 0 without pitch.
        likeness: To a comb of partials, 0 to 1.
    """

    octave: Float[Tensor, "batch frames"]
    slope: Float[Tensor, "batch frames"]
    likeness: Float[Tensor, "batch frames"]


class Harmonics(nn.Module):
    """Combs of partials: finds the one in a spectrum, and draws the one of a pitch.

    Args:
        sample_rate: Hz.
        num_bins: Bins of a spectrum.
        per_frame: Spectra of a latent frame.
    """

    frequency: Tensor
    weight: Tensor
    combs: Tensor

    def __init__(self, sample_rate: int, num_bins: int, per_frame: int) -> None:
        super().__init__()
        self.per_frame = per_frame
        self.bin_hz = sample_rate / 2 / (num_bins - 1)
        lowest = max(_LOWEST_HZ, _LEAST_BINS * self.bin_hz)
        highest = max(_HIGHEST_HZ, 2 * lowest)
        self.middle_hz = math.sqrt(lowest * highest)
        self.num_octaves = math.log2(highest / lowest)
        frequency = torch.arange(num_bins) * self.bin_hz
        asked = (frequency > 0.9 * lowest) & (frequency < max(_TOP_HZ, 3 * lowest))
        weight = asked.float() / (1 + frequency / _TILT_HZ)
        self.register_buffer("frequency", frequency, persistent=False)
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("combs", self._combs(), persistent=False)

    def find(self, logs: Float[Tensor, "batch seq bins"]) -> Pitch:
        """Pitch of each latent frame, which depends on no other frame."""
        flat = logs - F.avg_pool1d(
            F.pad(logs.flatten(0, 1)[:, None], (_AROUND // 2, _AROUND // 2), mode="replicate"),
            _AROUND,
            stride=1,
        ).reshape(logs.shape)
        asked = flat.clamp(-2.5, 2.5) * self.weight
        alike = asked @ self.combs.T / (asked.norm(dim=-1, keepdim=True) + 1)
        alike = alike.unflatten(1, (-1, self.per_frame))
        slopes = range(-_SLOPES, _SLOPES + 1)
        along = torch.stack(
            [
                torch.stack(
                    [
                        _moved(alike[:, :, index], round(slope * place))
                        for index, place in enumerate(self._places().tolist())
                    ]
                ).mean(dim=0)
                - abs(slope) * _STEADY
                for slope in slopes
            ],
            dim=2,
        )
        # The best slope at each candidate, then the best candidate.
        likeness, steepness = along.max(dim=2)
        summit, best = likeness.max(dim=-1)
        step = self.num_octaves / (_CANDIDATES - 1)
        octave = (best + _summit(likeness, best)) * step - self.num_octaves / 2
        rise = (steepness.gather(2, best[..., None])[..., 0] - _SLOPES) * step
        voiced = summit > _UNVOICED
        return Pitch(octave * voiced, rise * voiced, summit)

    def draw(self, pitch: Pitch) -> Float[Tensor, "batch seq bins"]:
        """Log magnitudes of the comb relative to the mean around it; 0 without pitch."""
        clear = ((pitch.likeness - _UNVOICED) / (_VOICED - _UNVOICED)).clamp(0, 1)
        return (
            self._comb(self._spectral_pitch_hz(pitch))
            * clear.repeat_interleave(self.per_frame, dim=1)[..., None]
        )

    def pitch_hz(self, pitch: Pitch) -> Float[Tensor, "batch seq"]:
        """Pitch of each spectrum, Hz; 0 without pitch."""
        is_named = (pitch.likeness > _UNVOICED).repeat_interleave(self.per_frame, dim=1)
        return self._spectral_pitch_hz(pitch) * is_named

    def _spectral_pitch_hz(self, pitch: Pitch) -> Float[Tensor, "batch seq"]:
        octave = pitch.octave[..., None] + pitch.slope[..., None] * self._places()
        half = self.num_octaves / 2
        return self.middle_hz * 2 ** octave.flatten(1).clamp(-half, half)

    def _places(self) -> Float[Tensor, " per_frame"]:
        """Place of each spectrum within a latent frame, -1/2 to 1/2."""
        index = torch.arange(self.per_frame, device=self.frequency.device)
        return (index + 0.5) / self.per_frame - 0.5

    def _comb(self, pitch_hz: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch bins"]:
        distance = pitch_hz[..., None]
        order = (self.frequency / distance).round().clamp(min=1)
        away = ((self.frequency - order * distance) / self.bin_hz).abs()
        lobe = (math.pi / 4 * away.clamp(max=2)).cos().square().clamp(min=_VALLEY)
        return lobe.log() - _mean_log_lobe(distance / self.bin_hz)

    def _combs(self) -> Float[Tensor, "candidates bins"]:
        half = self.num_octaves / 2
        combs = self._comb(self.middle_hz * 2 ** torch.linspace(-half, half, _CANDIDATES))
        combs = combs - (combs * self.weight).sum(dim=1, keepdim=True) / self.weight.sum()
        return F.normalize(combs * self.weight, dim=1)


def to_latents(pitch: Pitch) -> Float[Tensor, "batch frames 3"]:
    """Pitch as latents of about zero mean and unit variance."""
    values = torch.stack(pitch, dim=-1)
    return (values - values.new_tensor(_CENTRE)) / values.new_tensor(_SCALE)


def from_latents(latents: Float[Tensor, "batch frames 3"]) -> Pitch:
    """Inverse of `to_latents`."""
    values = latents * latents.new_tensor(_SCALE) + latents.new_tensor(_CENTRE)
    return Pitch(*values.unbind(-1))


def _moved(values: Float[Tensor, "batch frames candidates"], by: int) -> Tensor:
    """Values read `by` candidates further; outside there is no likeness."""
    if by >= 0:
        return F.pad(values[..., by:], (0, by), value=-1.0)
    return F.pad(values[..., :by], (-by, 0), value=-1.0)


def _summit(
    along: Float[Tensor, "batch frames candidates"], best: Int[Tensor, "batch frames"]
) -> Float[Tensor, "batch frames"]:
    """Candidates from the best one to the summit of the parabola through it and its neighbours."""
    around = F.pad(along, (1, 1), mode="replicate").unfold(-1, 3, 1)
    index = best[..., None, None].expand(-1, -1, 1, 3)
    before, middle, after = around.gather(2, index)[:, :, 0].unbind(-1)
    bend = (before - 2 * middle + after).clamp(max=-1e-6)
    return ((before - after) / (2 * bend)).clamp(-0.5, 0.5)


def _mean_log_lobe(distance: Tensor) -> Tensor:
    """Mean of the logarithm of a comb over one distance of partials, bins."""
    place = torch.linspace(-2, 2, 41)
    lobe = (math.pi / 4 * place).cos().square().clamp(min=_VALLEY)
    above = float((lobe / _VALLEY).log().mean()) * 4
    return math.log(_VALLEY) + above / distance.clamp(min=4)
