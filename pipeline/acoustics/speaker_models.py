"""Published speaker encoders out of a folder: x-vector heads of the `transformers` library.

Fits WavLM, UniSpeech-SAT, Wav2Vec2 and what else `AutoModelForAudioXVector` knows, saved with
`save_pretrained`: `config.json`, `preprocessor_config.json` and weights as safetensors.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.acoustics.speaker import SpeakerEncoder, StatisticsEncoder
from pipeline.audio.files import resample

_LONGEST_S = 20.0  # a voice is known by then, and attention is quadratic in the duration
_SHORTEST_S = 1.0  # the x-vector's convolutions need some frames
_SILENT_DBFS = -60.0


def load_speaker_encoder(folder: str | None, device: torch.device | None = None) -> SpeakerEncoder:
    """The encoder of a folder, or the built-in one.

    Args:
        folder: Local folder; None is the built-in encoder.
        device: Torch device of the encoder; None is the CPU.

    Raises:
        ValueError: If the folder holds no x-vector model, or weights that are not safetensors, or
            `transformers` is not installed.
    """
    return StatisticsEncoder() if folder is None else XVectorEncoder(folder, device)


def speaker_encoder_digest(folder: str | None) -> str:
    """SHA-256 over configuration and weights; empty for the built-in encoder.

    Raises:
        ValueError: If there are no configuration or no safetensors.
    """
    if folder is None:
        return ""
    digest = hashlib.sha256()
    weights = sorted(Path(folder).glob("*.safetensors"))
    files = [Path(folder) / "config.json", Path(folder) / "preprocessor_config.json", *weights]
    missing = [path.name for path in files if not path.is_file()]
    if missing or not weights:
        lacking = ", ".join(missing) or "*.safetensors"
        raise ValueError(
            f"{folder} holds no speaker encoder: {lacking} is missing; "
            "save model and feature extractor there with save_pretrained, as safetensors"
        )
    for path in files:
        with path.open("rb") as stream:
            digest.update(f"{path.name}\n".encode())
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


class XVectorEncoder:
    """An x-vector model and its feature extractor.

    Args:
        folder: Local folder.
        device: Torch device of the encoder; None is the CPU.

    Raises:
        ValueError: If the folder does not hold an encoder that `load_speaker_encoder` accepts.
    """

    def __init__(self, folder: str, device: torch.device | None = None) -> None:
        digest = speaker_encoder_digest(folder)
        try:
            from transformers import AutoFeatureExtractor, AutoModelForAudioXVector
        except ImportError as error:
            raise ValueError(
                "a speaker encoder needs transformers; install the extra `hf`"
            ) from error
        try:
            self._extract = AutoFeatureExtractor.from_pretrained(folder, local_files_only=True)
            model = AutoModelForAudioXVector.from_pretrained(
                folder, local_files_only=True, use_safetensors=True
            )
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(f"{folder} holds no speaker encoder: {error}") from error
        self._device = device or torch.device("cpu")
        self._model = model.to(self._device).eval()
        self.name = f"{model.config.model_type}-{digest[:16]}"
        self.speaker_dim = int(model.config.xvector_output_dim)

    def embed(self, waveform: NDArray[np.float32], sample_rate: int) -> NDArray[np.float32]:
        """The voice in a waveform; a zero vector for silence. Long clips give their middle."""
        rate = int(self._extract.sampling_rate)
        longest = round(_LONGEST_S * sample_rate)
        begin = max(0, (waveform.shape[1] - longest) // 2)
        mono = waveform[:, begin : begin + longest].mean(axis=0, keepdims=True)
        mono = resample(mono, sample_rate, rate)[0]
        if not len(mono) or np.abs(mono).max() < 10 ** (_SILENT_DBFS / 20):
            return np.zeros(self.speaker_dim, np.float32)
        shortest = round(_SHORTEST_S * rate)
        if len(mono) < shortest:
            mono = np.resize(mono, shortest)  # said over and over
        inputs = self._extract(mono, sampling_rate=rate, return_tensors="pt")
        with torch.inference_mode():
            vector = self._model(inputs.input_values.to(self._device)).embeddings[0]
        vector = torch.nn.functional.normalize(vector.float(), dim=0)
        embedding: NDArray[np.float32] = vector.cpu().numpy()
        return embedding
