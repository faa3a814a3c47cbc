"""Distances between a waveform and a reference of the same length and rate."""

from __future__ import annotations

import math

import torch
import torchaudio
from torch import Tensor

REFERENCE_LEVEL_DBFS = -20.0
"""RMS level to which clips are scaled before a spectral distance, so that loudness is ignored."""
NUM_MEL_BANDS = 80
LOG_FLOOR = 1e-5
BANDWIDTH_DB = -60.0
"""Level below the loudest band at which a band is outside the bandwidth, dB."""
STFT_SIZES = (2048, 1024, 512, 256, 128)


def log_mel(waveform: Tensor, sample_rate: int) -> Tensor:
    """Natural-log mel magnitudes, `channels bands frames`: 80 bands, 25 ms windows, 10 ms hop.

    Args:
        waveform: `channels samples`.
        sample_rate: Hz.
    """
    window = 2 ** math.ceil(math.log2(sample_rate * 0.025))
    transform = torchaudio.transforms.MelSpectrogram(
        sample_rate,
        n_fft=max(window, 1024),
        win_length=round(sample_rate * 0.025),
        hop_length=round(sample_rate * 0.010),
        n_mels=NUM_MEL_BANDS,
        f_min=20.0,
        power=1.0,
        norm="slaney",
        mel_scale="slaney",
    )
    magnitudes: Tensor = transform(waveform.float())
    return magnitudes.clamp_min(LOG_FLOOR).log()


def at_level(waveform: Tensor, level_dbfs: float = REFERENCE_LEVEL_DBFS) -> Tensor:
    """The waveform scaled to an RMS level; silence stays silence."""
    rms = waveform.float().pow(2).mean().sqrt()
    return waveform if rms == 0 else waveform * (10 ** (level_dbfs / 20) / rms)


def log_mel_l1(estimate: Tensor, reference: Tensor, sample_rate: int) -> float:
    """Mean absolute difference of log-mel spectra at -20 dBFS, natural log."""
    _same_shape(estimate, reference)
    gain = 10 ** (REFERENCE_LEVEL_DBFS / 20) / reference.float().pow(2).mean().sqrt().clamp_min(
        1e-8
    )
    ours, theirs = log_mel(estimate * gain, sample_rate), log_mel(reference * gain, sample_rate)
    return float((ours - theirs).abs().mean())


def stft_distance(estimate: Tensor, reference: Tensor) -> float:
    """Mean over resolutions of the log-magnitude L1 distance, natural log.

    Source:
        Multi-resolution STFT loss, arXiv:1910.11480, Eq. 5, without spectral convergence.
    """
    _same_shape(estimate, reference)
    distances = [
        (_log_stft(estimate, size) - _log_stft(reference, size)).abs().mean()
        for size in STFT_SIZES
        if size <= reference.shape[-1]
    ]
    if not distances:
        raise ValueError(
            f"{reference.shape[-1]} samples are fewer than the smallest window, {STFT_SIZES[-1]}"
        )
    return float(torch.stack(distances).mean())


def si_sdr_db(estimate: Tensor, reference: Tensor) -> float:
    """Scale-invariant signal-to-distortion ratio over all channels, dB.

    Source:
        arXiv:1811.02508, Eq. 1-3, on zero-mean signals.
    """
    _same_shape(estimate, reference)
    ours = (estimate - estimate.mean(-1, keepdim=True)).flatten().double()
    theirs = (reference - reference.mean(-1, keepdim=True)).flatten().double()
    energy = theirs.dot(theirs)
    if energy == 0:
        raise ValueError("the reference is silent; SI-SDR is not defined")
    target = (ours.dot(theirs) / energy) * theirs
    noise = ours - target
    return float(10 * torch.log10(target.dot(target) / noise.dot(noise).clamp_min(1e-20)))


def bandwidth_hz(waveform: Tensor, sample_rate: int) -> float:
    """Highest frequency within 60 dB of the loudest band, Hz.

    Read from the average power of 1024-sample spectra, so that single clicks do not count.

    Args:
        waveform: `channels samples`.
        sample_rate: Hz.
    """
    size = 1024
    padded = torch.nn.functional.pad(waveform.float(), (0, max(0, size - waveform.shape[-1])))
    # Not centred: mirrored edges have a kink that is heard at all frequencies.
    spectrum = torch.stft(
        padded, size, window=torch.hann_window(size), center=False, return_complex=True
    )
    power = spectrum.abs().square().mean(dim=(0, 2))
    heard = torch.nonzero(power >= power.max() * 10 ** (BANDWIDTH_DB / 10))
    return float(heard.max()) * sample_rate / size


def width_db(waveform: Tensor) -> float:
    """Level of the side over that of the mid of a stereo waveform, dB; lower is narrower.

    Raises:
        ValueError: If the waveform is not stereo.
    """
    if waveform.shape[0] != 2:
        raise ValueError(f"width of {waveform.shape[0]} channels; it is defined for 2")
    left, right = waveform.double()
    mid, side = ((left + right) / 2).square().sum(), ((left - right) / 2).square().sum()
    return float(10 * torch.log10((side + 1e-12) / (mid + 1e-12)))


def _log_stft(waveform: Tensor, size: int) -> Tensor:
    spectrum = torch.stft(
        waveform.float(),
        size,
        hop_length=size // 4,
        window=torch.hann_window(size),
        return_complex=True,
    )
    return spectrum.abs().clamp_min(LOG_FLOOR).log()


def _same_shape(estimate: Tensor, reference: Tensor) -> None:
    if estimate.shape != reference.shape:
        raise ValueError(
            f"estimate {tuple(estimate.shape)} and reference {tuple(reference.shape)} differ; "
            "trim both to the same channels and samples"
        )
