"""CLAP embeddings of audio and text from a local folder."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import soxr
import torch
from numpy.typing import NDArray
from torch import Tensor


class ClapEmbedding:
    """A CLAP model of the transformers library; long audio is embedded by its beginning.

    Source:
        arXiv:2211.06687.
    """

    name = "CLAP"

    def __init__(self, folder: str) -> None:
        """Load model, feature extractor and tokenizer.

        Args:
            folder: Folder that `save_pretrained` of model, feature extractor and tokenizer wrote,
                with safetensors.

        Raises:
            ValueError: If the folder holds no CLAP model, or transformers is not installed.
        """
        try:
            from transformers import AutoFeatureExtractor, AutoTokenizer, ClapModel
        except ImportError as error:
            raise ValueError("CLAP needs transformers; install the extra `eval`") from error
        self._folder = folder
        try:
            self._extract: Any = AutoFeatureExtractor.from_pretrained(folder, local_files_only=True)
            self._tokenize: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            model = ClapModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(f"{folder} holds no CLAP model: {error}") from error
        self._model: Any = model.eval()
        digest = hashlib.sha256()
        for path in sorted(Path(folder).glob("*.safetensors")):
            digest.update(path.read_bytes())
        self.version = digest.hexdigest()

    def __reduce__(self) -> tuple[type[ClapEmbedding], tuple[str]]:
        """Pickle the folder alone: the model is loaded again where it is unpickled."""
        return ClapEmbedding, (self._folder,)

    def embed(self, waveform: Tensor, sample_rate: int) -> NDArray[np.floating[Any]]:
        """Unit vector of `channels samples`; channels are averaged."""
        rate = int(self._extract.sampling_rate)
        mono = soxr.resample(waveform.float().mean(0).numpy(), sample_rate, rate)
        # The extractor takes a random window of longer audio.
        mono = mono[: int(self._extract.nb_max_samples)]
        inputs = self._extract(mono, sampling_rate=rate, return_tensors="pt")
        with torch.inference_mode():
            return self._unit(self._model.get_audio_features(**inputs))

    def score(self, waveform: Tensor, sample_rate: int, text: str) -> float:
        """Cosine between the embeddings of audio and text."""
        inputs = self._tokenize(text, return_tensors="pt", truncation=True)
        with torch.inference_mode():
            words = self._unit(self._model.get_text_features(**inputs))
        return float(words @ self.embed(waveform, sample_rate))

    def _unit(self, output: Any) -> NDArray[np.floating[Any]]:
        vector = getattr(output, "pooler_output", output)[0].float()
        unit: NDArray[np.float32] = torch.nn.functional.normalize(vector, dim=0).numpy()
        return unit
