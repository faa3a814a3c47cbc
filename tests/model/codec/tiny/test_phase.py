from __future__ import annotations

import math

import torch

from model.codec.spectrum import short_time_spectrum
from model.codec.tiny.phase import excitation, initial_phases, noise_spectra, tonality

WINDOW, HOP = 64, 16
BINS = WINDOW // 2 + 1


def start(batch: int = 1, channels: int = 1) -> torch.Tensor:
    return initial_phases(channels, BINS).expand(batch, -1, -1, -1)


def excite(
    logs: torch.Tensor, state: torch.Tensor | None = None, num_before: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    state = start(*logs.shape[:2]) if state is None else state
    return excitation(logs, noise_spectra(WINDOW, HOP), state, num_before, WINDOW, HOP)


def spectra(waveform: torch.Tensor) -> torch.Tensor:
    return short_time_spectrum(waveform, torch.hann_window(WINDOW), HOP)


def test_phases_of_a_tone_turn_at_its_own_frequency() -> None:
    for frequency in (0.31, 0.6, 1.234, 2.5):
        spectrum = spectra(torch.sin(frequency * torch.arange(1600))[None, None])
        logs = spectrum.abs().clamp(min=1e-5).log()
        excited, _ = excite(logs)
        loudest = int(logs[0, 0, 50].argmax())
        for bin_ in (loudest - 1, loudest, loudest + 1):
            turns = (excited[0, 0, 21:80, bin_] * excited[0, 0, 20:79, bin_].conj()).angle()
            off = torch.remainder(turns - frequency * HOP + math.pi, 2 * math.pi) - math.pi
            # a Hann window is not quite a Gaussian: a hundredth of the distance of bins
            assert float(off.mean().abs()) < 0.1, (frequency, bin_)
        # the bins of one tone stay locked, and stand to each other as they do in its spectrum
        locked, truly = (
            part[0, 0, 20:80, loudest] * part[0, 0, 20:80, loudest + 1].conj()
            for part in (excited, spectrum / spectrum.abs())
        )
        assert float((locked * truly.conj()).real.min()) > 0.95


def test_peaks_are_tones_and_smooth_spectra_noise() -> None:
    tone = spectra(torch.sin(0.6 * torch.arange(1600))[None, None]).abs().clamp(min=1e-3).log()
    share = tonality(tone)[0, 0, 20:80]
    peak = round(0.6 / (2 * math.pi) * WINDOW)
    assert float(share[:, peak - 1 : peak + 2].min()) == 1
    assert float(share[:, 20:].max()) == 0
    slope = torch.linspace(0, -8, BINS).expand(1, 1, 5, -1)
    assert float(tonality(slope).max()) < 0.7
    assert float(tonality(torch.zeros(1, 1, 5, BINS)).max()) == 0


def test_noise_is_consistent_and_levelled() -> None:
    noise = noise_spectra(WINDOW, HOP)
    assert torch.equal(noise, noise_spectra(WINDOW, HOP))
    size = noise.abs()
    torch.testing.assert_close(size, size.mean().expand(size.shape))
    assert 1 < float(size.mean()) < 1.34  # between mean logarithm and root mean square of noise
    # neighbouring frames are of one waveform, and turn as its bins do
    index = torch.arange(BINS)
    steady = torch.polar(torch.ones(BINS), 2 * math.pi / WINDOW * HOP * index)
    alike = (noise[1:] * noise[:-1].conj() * steady.conj()).mean(dim=0).real
    assert bool((alike[2:-2] > 0.3).all())


def test_pieces_of_any_length_go_on_from_each_other() -> None:
    logs = 2 * torch.randn(2, 3, 23, BINS)
    whole, last = excite(logs)
    state, pieces, position = start(2, 3), [], 0
    for piece in logs.split([1, 5, 2, 15], dim=2):
        excited, state = excite(piece, state, torch.tensor([position, position]))
        pieces.append(excited)
        position += piece.shape[2]
    assert torch.equal(torch.cat(pieces, dim=2), whole)
    assert torch.equal(state, last)


def test_the_noise_begins_again_behind_its_end() -> None:
    logs = torch.zeros(1, 1, 3, BINS)
    first, _ = excite(logs)
    later, _ = excite(logs, None, torch.tensor([len(noise_spectra(WINDOW, HOP))]))
    assert torch.equal(first, later)
    elsewhere, _ = excite(logs, None, torch.tensor([7]))
    assert not torch.equal(first, elsewhere)


def test_rows_do_not_hear_each_other() -> None:
    logs = torch.randn(3, 1, 9, BINS)
    together, _ = excite(logs)
    alone, _ = excite(logs[1:2])
    torch.testing.assert_close(together[1:2], alone)


def test_rounding_of_magnitudes_stays_rounding_of_the_excitation() -> None:
    time = torch.arange(32_000)
    voice = sum(torch.sin(0.21 * order * time) / order for order in range(1, 8))
    logs = spectra((voice + 0.1 * torch.randn(32_000))[None, None]).abs().clamp(min=1e-3).log()
    smooth = torch.nn.functional.avg_pool1d(logs[0, 0], 3, 1, 1)[None, None]
    found, _ = excite(smooth)
    other, _ = excite(smooth + 1e-6 * torch.randn_like(smooth))
    magnitude = smooth.exp()
    # Where tone and noise nearly cancel a bin turns fast; it does not carry far.
    assert float((magnitude * (found - other).abs()).max() / magnitude.max()) < 1e-2
