"""Report on a finished codec: held-out losses, reconstructions, curves."""

from __future__ import annotations

import logging
import posixpath
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from model.codec.importance import channel_importance
from model.codec.protocol import AudioCodec
from model.codec.vae.losses import CodecLossConfig, decoding_losses
from model.codec.vae.vae import VAECodec
from pipeline.audio.wav import write_wav
from pipeline.figures import save_curves, save_spectrogram
from pipeline.storage import Folder
from pipeline.tracking import Tracker
from pipeline.training.codec.crops import CropSource
from pipeline.training.codec.settings import TrainCodecSettings
from pipeline.training.codec.setup import crop_source

logger = logging.getLogger(__name__)

_STEP = 0
_BATCH = 8
_DRAWS = 4
_NOT_DRAWN = ("step", "gradient_norm", "discriminator_gradient_norm", "adversarial")
"""Steps, gradients, and the hinge term of the codec, which has no logarithm below zero."""


def validation_losses(
    codec: VAECodec, source: CropSource, count: int, seed: int, config: CodecLossConfig
) -> dict[str, float]:
    """Loss terms of decoded posterior means, mean over `count` crops."""
    sums: dict[str, float] = {}
    for start in range(0, count, _BATCH):
        indices = range(start, min(start + _BATCH, count))
        waveform = torch.from_numpy(source.batch(seed, _STEP, indices))
        posterior = codec.encode(waveform)
        with torch.no_grad():
            terms, _ = decoding_losses(codec, waveform, posterior, posterior.mean, config)
        for name, term in terms.items():
            sums[name] = sums.get(name, 0.0) + float(term) * len(indices)
    return {name: value / count for name, value in sums.items()}


@torch.no_grad()
def measured_importance(
    codec: AudioCodec, source: CropSource, seed: int, device: torch.device | str = "cpu"
) -> list[float] | None:
    """Importance of every latent channel over a few crops (`model.codec.importance`).

    None, with a warning, where the decoded audio does not depend on the latents.

    Args:
        codec: The codec, on the device.
        source: Crops to measure it on.
        seed: Which crops.
        device: Device of the codec.
    """
    waveform = torch.from_numpy(source.batch(seed, _STEP, range(_BATCH))).to(device)
    try:
        importance = channel_importance(codec, codec.encode(waveform).mean)
    except ValueError as error:
        logger.warning("the codec states no importance of its channels: %s", error)
        return None
    return [float(value) for value in importance]


def clip_importance(codec: AudioCodec, clips: str) -> list[float] | None:
    """`measured_importance` of any codec on the training clips of a `clips/` directory.

    Raises:
        IncompleteError: If the directory is not complete.
        CropError: If it holds no readable clips.
    """
    settings = TrainCodecSettings()
    num_frames = max(1, codec.timebase.frames_in(settings.crops.duration_s))
    source = crop_source(settings, Folder.at(clips), "train", codec, num_frames)
    return measured_importance(codec, source, settings.seed)


def write_reconstructions(
    folder: Path, codec: VAECodec, source: CropSource, count: int, seed: int
) -> None:
    """Originals and reconstructions as WAV files, each with its spectrogram as a PNG.

    A split with few clips gives fewer than `count`, since no clip is shown twice.
    """
    rate = codec.timebase.sample_rate
    for index, original in enumerate(_distinct(source, count, seed)):
        latents = codec.encode(torch.from_numpy(original)[None]).mean
        decoded = codec.decode(latents)[0].numpy()
        for kind, waveform in (("original", original), ("codec", decoded)):
            name = f"{index:02d}-{kind}"
            write_wav(folder / f"{name}.wav", waveform, rate)
            save_spectrogram(folder / f"{name}.png", waveform, rate, kind)


def _distinct(source: CropSource, count: int, seed: int) -> list[NDArray[np.float32]]:
    found: dict[bytes, NDArray[np.float32]] = {}
    for index in range(_DRAWS * count):
        crop = source.crop(seed, _STEP, index)
        found.setdefault(crop.tobytes(), crop)
        if len(found) == count:
            break
    return list(found.values())


def write_curves(path: Path, curve: Sequence[dict[str, float]]) -> None:
    """The terms of the loss over the steps, as a PNG."""
    names = dict.fromkeys(name for point in curve for name in point)
    lines = {
        name: [(point["step"], point[name]) for point in curve if name in point]
        for name in names
        if name not in _NOT_DRAWN
    }
    save_curves(path, lines, "codec training", is_log=True)


def write_artefacts(
    settings: TrainCodecSettings,
    codec: VAECodec,
    curve: list[dict[str, float]],
    clips: Folder,
    folder: Folder,
    tracker: Tracker,
) -> None:
    """Write reconstructions and curves of a finished run into its folder and to MLflow."""
    num_frames = codec.timebase.frames_in(settings.reconstruction_s)
    source = crop_source(settings, clips, "validation", codec, num_frames)
    with tempfile.TemporaryDirectory() as name:
        written = Path(name)
        write_reconstructions(written, codec, source, settings.reconstructions, settings.seed)
        write_curves(written / "curves.png", curve)
        for path in sorted(written.iterdir()):
            folder.write_bytes(path.name, path.read_bytes())
            tracker.log_file(path, posixpath.basename(folder.path))
