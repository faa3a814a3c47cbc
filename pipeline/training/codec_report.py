"""What a finished codec sounds and looks like: reconstructions beside their originals."""

from __future__ import annotations

import io

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray

from model.codec.losses import CodecLossConfig, codec_losses
from model.codec.vae import VAECodec
from pipeline.training.codec_data import CropSource

_STEP = 0
_BATCH = 8
_RANGE_DB = (-100.0, -20.0)


def validation_losses(
    codec: VAECodec, source: CropSource, count: int, seed: int, config: CodecLossConfig
) -> dict[str, float]:
    """Loss terms of decoded posterior means, mean over `count` crops."""
    sums: dict[str, float] = {}
    for start in range(0, count, _BATCH):
        indices = range(start, min(start + _BATCH, count))
        waveform = torch.from_numpy(source.batch(seed, _STEP, indices))
        posterior = codec.encode(waveform)
        output = codec.decode(posterior.mean)
        terms = codec_losses(output, waveform, posterior, config, codec.timebase.sample_rate)
        for name, term in terms.items():
            sums[name] = sums.get(name, 0.0) + float(term) * len(indices)
    return {name: value / count for name, value in sums.items()}


def reconstructions(codec: VAECodec, source: CropSource, count: int, seed: int) -> dict[str, bytes]:
    """Files by name: original and reconstruction as WAV, and both spectrograms as one PNG."""
    files: dict[str, bytes] = {}
    rate = codec.timebase.sample_rate
    for index in range(count):
        original = source.crop(seed, _STEP, index)
        latents = codec.encode(torch.from_numpy(original)[None]).mean
        decoded = codec.decode(latents)[0].numpy()
        files[f"{index:02d}-original.wav"] = wav_bytes(original, rate)
        files[f"{index:02d}-codec.wav"] = wav_bytes(decoded, rate)
        files[f"{index:02d}.png"] = spectrogram_png(
            {"original": original.mean(axis=0), "codec": decoded.mean(axis=0)}, rate
        )
    return files


def wav_bytes(waveform: NDArray[np.float32], sample_rate: int) -> bytes:
    """A 16-bit WAV file of `channels samples`; what exceeds full scale is clipped."""
    sink = io.BytesIO()
    soundfile.write(sink, np.clip(waveform, -1, 1).T, sample_rate, format="WAV", subtype="PCM_16")
    return sink.getvalue()


def spectrogram_png(waveforms: dict[str, NDArray[np.float32]], sample_rate: int) -> bytes:
    """Spectrograms of mono waveforms below each other, time in seconds, levels in dB."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.6 * len(waveforms)), layout="constrained")
    axes = figure.subplots(len(waveforms), squeeze=False)[:, 0]
    window = torch.hann_window(512)
    for axis, (title, waveform) in zip(axes, waveforms.items(), strict=True):
        spectrum = torch.stft(
            torch.from_numpy(waveform), 512, 128, window=window, return_complex=True,
            pad_mode="constant",
        )  # fmt: skip
        level_db = 20 * (spectrum.abs() / window.sum()).clamp(min=1e-6).log10()
        axis.imshow(
            level_db.numpy(),
            origin="lower",
            aspect="auto",
            extent=(0, waveform.shape[0] / sample_rate, 0, sample_rate / 2000),
            vmin=_RANGE_DB[0],
            vmax=_RANGE_DB[1],
        )
        axis.set(title=title, xlabel="s", ylabel="kHz")
    sink = io.BytesIO()
    figure.savefig(sink, format="png", dpi=90)
    return sink.getvalue()
