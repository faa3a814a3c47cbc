"""Speech recognition for error rates: the protocol, and Whisper from a local folder."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import soxr
from torch import Tensor

from pipeline.evaluation.whisper_text import spelling_file

RECOGNISER_RATE = 16_000
_FILES = ("config.json", "model.bin", "tokenizer.json")
_BEAMS = 5


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class RecogniserError(ValueError):
    """The recogniser cannot be loaded: its folder or its library is missing."""


@dataclass(frozen=True)
class Heard:
    """The words that a recogniser found in one clip.

    Attributes:
        text: Text as the recogniser writes it.
        word_ends_s: End of each word, seconds.
    """

    text: str
    word_ends_s: tuple[float, ...] = ()


class Recogniser(Protocol):
    """A speech recogniser: the same waveform gives the same text.

    Attributes:
        name: Name in the results.
        languages: BCP 47 language subtags that it understands.
        version: Digest of its weights and settings.
        spelling: File that maps British to American spelling; None if there is none.
    """

    name: str
    languages: Sequence[str]
    version: str
    spelling: Path | None

    def hear(self, waveform: Tensor, sample_rate: int, language: str) -> Heard:
        """Transcribe a waveform of `channels samples`."""


class WhisperRecogniser:
    """A Whisper model in CTranslate2 form, on the CPU; nothing is downloaded."""

    def __init__(self, folder: Path, num_threads: int = 1) -> None:
        """Load the model.

        Args:
            folder: Folder with config.json, model.bin and tokenizer.json, as the converter
                `ct2-transformers-converter` writes them.
            num_threads: CPU threads.

        Raises:
            RecogniserError: If a file or the library is missing, or the model cannot be read.
        """
        missing = [name for name in _FILES if not (folder / name).is_file()]
        if missing:
            raise RecogniserError(
                f"{folder} has no {', '.join(missing)}; give the folder of a Whisper model in "
                "CTranslate2 form (ct2-transformers-converter --copy_files tokenizer.json)"
            )
        try:
            import jiwer  # noqa: F401 - error rates need it later; fail before anything is generated
            import num2words  # noqa: F401 - likewise
            from faster_whisper import WhisperModel
        except ImportError as error:
            raise RecogniserError(
                f"word error rates by Whisper need {error.name}: install the extra `eval` "
                "(pip install 'audiocalm[eval]')"
            ) from error
        try:
            self._model: Any = WhisperModel(
                str(folder),
                device="cpu",
                compute_type="int8",
                cpu_threads=num_threads,
                local_files_only=True,
            )
        except (RuntimeError, ValueError) as error:
            raise RecogniserError(f"{folder} holds no Whisper model: {error}") from error
        self._folder, self._num_threads = folder, num_threads
        self.name = f"Whisper {folder.name}"
        self.version = _digest(folder / "model.bin")
        self.spelling = spelling_file(folder)
        self.languages: Sequence[str] = self._model.supported_languages

    def __reduce__(self) -> tuple[type[WhisperRecogniser], tuple[Path, int]]:
        """Pickle the arguments: the model is loaded again where it is unpickled."""
        return WhisperRecogniser, (self._folder, self._num_threads)

    def hear(self, waveform: Tensor, sample_rate: int, language: str) -> Heard:
        """Beam search of 5 without sampling, each clip by itself."""
        mono = soxr.resample(waveform.float().mean(0).numpy(), sample_rate, RECOGNISER_RATE)
        if not np.any(mono):
            return Heard("")
        segments, _ = self._model.transcribe(
            mono.astype(np.float32),
            language=language.split("-")[0],
            beam_size=_BEAMS,
            temperature=0.0,
            condition_on_previous_text=False,
            word_timestamps=True,
        )
        words = [word for segment in segments for word in segment.words or ()]
        text = "".join(word.word for word in words).strip()
        return Heard(text, tuple(float(word.end) for word in words))
