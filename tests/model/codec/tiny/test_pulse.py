"""Pulses of a voice: partials locked to one another, whatever pieces they are made in."""

from __future__ import annotations

import math

import torch

from model.codec.tiny.pitch import Harmonics, Pitch
from model.codec.tiny.pulse import Pulses, PulseTrain

RATE, WINDOW, HOP, PER_FRAME = 16_000, 640, 160, 4
HARMONICS = Harmonics(RATE, WINDOW // 2 + 1, PER_FRAME)
TRAIN = PulseTrain(HARMONICS, RATE, HOP)


def pitch(hz: list[float], likeness: list[float]) -> Pitch:
    """Steady pitch of latent frames."""
    octave = (torch.tensor([hz]) / HARMONICS.middle_hz).log2()
    return Pitch(octave, torch.zeros_like(octave), torch.tensor([likeness]))


def bin_of(hz: float) -> int:
    return round(hz / HARMONICS.bin_hz)


def test_every_partial_has_the_phase_of_the_first_times_its_number() -> None:
    pulses, _ = TRAIN(pitch([200.0] * 5, [0.6] * 5), None)
    centre = pulses.phasor[0, 11] * (-1.0) ** torch.arange(WINDOW // 2 + 1)
    first = centre[bin_of(200)].angle()
    for number in range(1, 15):
        expected = torch.polar(torch.ones(()), number * first)
        torch.testing.assert_close(centre[bin_of(200 * number)], expected, atol=1e-4, rtol=0)
    turned = (pulses.phasor[0, 12] / pulses.phasor[0, 11])[bin_of(200)].angle()
    expected_turn = torch.tensor(2 * math.pi * 200 * HOP / RATE)
    torch.testing.assert_close(turned.cos(), expected_turn.cos(), atol=1e-4, rtol=0)


def test_a_flat_spectrum_becomes_one_pulse_a_period() -> None:
    pulses, _ = TRAIN(pitch([100.0] * 20, [0.6] * 20), None)
    frames = torch.fft.irfft(pulses.phasor[0] * pulses.share[0], n=WINDOW)
    window = torch.hann_window(WINDOW)
    waveform = torch.zeros(HOP * (len(frames) - 1) + WINDOW)
    for index, frame in enumerate(frames):
        waveform[index * HOP : index * HOP + WINDOW] += window * frame
    middle = waveform[3200:9600].unfold(0, RATE // 100, RATE // 100)
    summits = middle.abs().argmax(dim=1)
    assert int(summits.max() - summits.min()) <= 1
    # A pulse: most of the power of a period lies in a tenth of it.
    power = middle.square().sum(dim=0).roll(80 - int(summits[0]))
    assert float(power[72:89].sum() / power.sum()) > 0.6


def test_pieces_of_any_length_go_on_from_each_other() -> None:
    hz = [110.0, 130.0, 90.0, 210.0, 210.0, 180.0, 95.0]
    likeness = [0.1, 0.5, 0.25, 0.6, 0.1, 0.22, 0.7]
    whole, last = TRAIN(pitch(hz, likeness), None)
    pieces: list[Pulses] = []
    state = None
    for start, end in ((0, 1), (1, 4), (4, 7)):
        piece, state = TRAIN(pitch(hz[start:end], likeness[start:end]), state)
        pieces.append(piece)
    for name in Pulses._fields:
        joined = torch.cat([getattr(piece, name) for piece in pieces], dim=1)
        torch.testing.assert_close(joined, getattr(whole, name), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(state, last)


def test_the_pitch_named_last_goes_on_and_none_is_made_up() -> None:
    hz, likeness = [300.0, 300.0, 65.0, 65.0], [0.25, 0.6, 0.25, 0.1]
    pulses, state = TRAIN(pitch(hz, likeness), None)
    voiced = pulses.share.amax(dim=-1)[0].unflatten(0, (-1, PER_FRAME)).amax(dim=1)
    assert voiced[[0, 3]].tolist() == [0, 0]  # no pitch was named yet; not voiced
    assert float(voiced[1:3].min()) > 0.9
    torch.testing.assert_close(state[0, 1], torch.tensor(300.0, dtype=torch.float64))


def test_noise_above_and_notes_between_partials_are_left_alone() -> None:
    pulses, _ = TRAIN(pitch([400.0] * 2, [0.9] * 2), None)
    share = pulses.share[0, -1]
    assert float(share[bin_of(800)]) > 0.95
    assert float(share[bin_of(1000)]) < 0.01  # half way to the next partial
    assert float(share[bin_of(7200)]) < 0.02
