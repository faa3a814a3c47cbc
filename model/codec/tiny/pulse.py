"""A voice as one pulse a period: the phase of every partial is that of the first times its number.

Left to themselves partials drift apart, which is heard as hoarseness. The pitch is in the latents,
so that nothing is coded for this and nothing is learned.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn

from model.codec.tiny.pitch import Harmonics, Pitch

_UNVOICED, _VOICED = 0.2, 0.23
"""Likeness to a comb up to which a frame is no pulses, and from which it is: less than a pitch
needs to be named, because the one named last goes on."""
_TOP_HZ, _EDGE_HZ = 4000.0, 600.0
"""Frequency up to which a voice is pulses, and how gradually it ends there."""
_REACH = 3
"""Bins up to which a partial reaches: other notes of a chord keep their own phases."""


class Pulses(NamedTuple):
    """Pulses of a voice, as frames of a symmetric window see them.

    Attributes:
        phasor: Unit phasor of each bin, the time of frames counted from their begin.
        share: How far a bin is of the voice, 0 to 1.
    """

    phasor: Complex[Tensor, "batch seq bins"]
    share: Float[Tensor, "batch seq bins"]


class PulseTrain(nn.Module):
    """Pulses at the pitch of latent frames, causal.

    Args:
        harmonics: Bins, and what a pitch in latents means.
        sample_rate: Hz.
        hop_length: Samples between frames.
    """

    def __init__(self, harmonics: Harmonics, sample_rate: int, hop_length: int) -> None:
        super().__init__()
        self.harmonics = harmonics
        self.hop_s = hop_length / sample_rate

    def initial_state(self) -> Float[Tensor, "2"]:
        """Before the first frame: periods passed, and pitch in Hz, 0 while none was named.

        It is float64, because partials multiply its errors.
        """
        return self.harmonics.frequency.new_zeros(2, dtype=torch.float64)

    @torch.no_grad()
    def forward(
        self, pitch: Pitch, state: Float[Tensor, "batch 2"] | None
    ) -> tuple[Pulses, Float[Tensor, "batch 2"]]:
        """Pulses of the frames of the given latent frames, and the state after them.

        Args:
            pitch: Pitch of latent frames; in float64 pieces join without a difference.
            state: State after the frames before these; None is the beginning.
        """
        if state is None:
            state = self.initial_state().expand(len(pitch.octave), -1)
        turn, last_hz = state.split(1, dim=1)
        named = self.harmonics.pitch_hz(pitch).double()
        held = _held(torch.cat([last_hz, named], dim=1))
        passed = turn + torch.cumsum((held[:, 1:] + held[:, :-1]) / 2 * self.hop_s, dim=1)
        frequency = self.harmonics.frequency
        order = (frequency / held[:, 1:, None].clamp(min=1)).round()
        # Seen from the begin of a frame, what happens at its centre turns by half a turn a bin.
        turns = order * passed[..., None] + torch.arange(len(frequency), device=order.device) / 2
        angle = (2 * math.pi * turns.frac()).float()
        voiced = ((pitch.likeness - _UNVOICED) / (_VOICED - _UNVOICED)).clamp(0, 1)
        voiced = voiced.repeat_interleave(self.harmonics.per_frame, dim=1) * (held[:, 1:] > 0)
        share = voiced[..., None] * torch.sigmoid((_TOP_HZ - frequency) / _EDGE_HZ)
        share = share * _near(frequency - order * held[:, 1:, None], self.harmonics.bin_hz)
        after = torch.stack([passed[:, -1].frac(), held[:, -1]], dim=1)
        return Pulses(torch.polar(torch.ones_like(angle), angle), share.float()), after


def _near(distance_hz: Float[Tensor, "batch seq bins"], bin_hz: float) -> Tensor:
    """How near the bins are to a partial, 1 on it, falling to 0 where it does not reach."""
    away = (distance_hz.abs() / bin_hz).clamp(max=_REACH)
    return (math.pi / 2 / _REACH * away).cos().square()


def _held(pitch_hz: Float[Tensor, "batch seq"]) -> Float[Tensor, "batch seq"]:
    """Each 0 replaced by the last value before it."""
    index = torch.arange(pitch_hz.shape[1], device=pitch_hz.device)
    return pitch_hz.gather(1, (index * (pitch_hz > 0)).cummax(dim=1).values)
