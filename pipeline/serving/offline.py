"""Audio files from a bundle in this process: what `audiocalm generate` does, without Ray."""

from __future__ import annotations

import errno
import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from jaxtyping import Float
from torch import Tensor

from model.bundle.bundle import Bundle, Precision, load_bundle
from model.bundle.limits import MAX_TEXT_CHARS, Limits, RequestError
from model.bundle.request import SynthesisRequest
from model.bundle.synthesis import Piece, Synthesizer
from pipeline.serving.encoders import AudioEncoder
from pipeline.serving.formats import AudioLayout, Format, pcm_bytes
from pipeline.serving.heard_voice import heard_voice
from pipeline.serving.provenance import provenance_of

_FORMATS: dict[str, Format] = {
    ".wav": "wav",
    ".flac": "flac",
    ".mp3": "mp3",
    ".opus": "opus",
    ".ogg": "opus",
    ".aac": "aac",
}
"""Formats by the ending of a file name."""
_LONGEST_SPEECH_S = 3 * 3600.0
"""Longest speech of one file, as its text is expected to take, seconds. A slow voice takes twice as
long; a WAV file of 4 GiB holds six hours of 48 kHz stereo."""


@dataclass(frozen=True)
class MadeFile:
    """A finished file and its timing.

    Attributes:
        path: The file.
        duration_s: Audio in it, seconds.
        elapsed_s: Time from the request to the last chunk, without loading, seconds.
        first_s: Time from the request to the first chunk, seconds.
        is_capped: Whether speech was cut off at its maximum duration.
    """

    path: Path
    duration_s: float
    elapsed_s: float
    first_s: float
    is_capped: bool = False

    @property
    def real_time_factor(self) -> float:
        """Generation time divided by duration; below 1 is faster than real time."""
        return self.elapsed_s / self.duration_s if self.duration_s else float("inf")


def open_synthesizer(
    folder: str | Path, device: str = "auto", precision: Precision = "auto"
) -> Synthesizer:
    """A bundle ready to make audio.

    Args:
        folder: The bundle.
        device: auto, cpu or cuda; auto takes a GPU where there is one.
        precision: Type of the weights, as in `load_bundle`.

    Raises:
        BundleError: If the bundle is incomplete or altered.
        ValueError: If the device is not there.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            "device is 'cuda' and no CUDA device is there; take cpu or auto "
            "(`audiocalm doctor` says what torch finds)"
        )
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    limits = Limits(max_transcript_chars=MAX_TEXT_CHARS, max_speech_s=_LONGEST_SPEECH_S)
    bundle = load_bundle(Path(folder), device, precision)
    return Synthesizer(bundle, limits, voice_of=heard_voice(bundle))


def voice_of(
    bundle: Bundle, voice: str, embed: Callable[[str], Sequence[float]]
) -> Float[Tensor, " speaker_dim"]:
    """Speaker embedding of a named voice, or of a recording.

    Args:
        bundle: Bundle with named voices.
        voice: A name, or the path of a recording.
        embed: Computes the embedding of a recording.

    Raises:
        RequestError: If it is neither a voice of the bundle nor a file.
    """
    if voice in bundle.voices:
        return bundle.voices[voice].embedding
    if not os.path.isfile(voice):
        known = ", ".join(sorted(bundle.voices)) or "none"
        raise RequestError(
            "voice", f"{voice!r} is no file and no voice of the bundle, which has {known}"
        )
    return torch.tensor(embed(voice), dtype=torch.float32)


def format_of(path: Path) -> Format:
    """The audio format that the ending of a file name says.

    Raises:
        ValueError: If the ending is of none.
    """
    try:
        return _FORMATS[path.suffix.lower()]
    except KeyError:
        known = ", ".join(_FORMATS)
        raise ValueError(f"{path} ends in none of {known}; rename it") from None


def make_file(synthesizer: Synthesizer, request: SynthesisRequest, path: Path) -> MadeFile:
    """Write an audio file that appears complete or not at all; its tags name model and seed.

    The file is written while the audio is generated, so its length takes no memory.

    Args:
        synthesizer: Synthesizer of the bundle.
        request: What to make.
        path: File to write, in the format of its ending; its folder is made if it is not there.

    Raises:
        RequestError: If the request cannot be made.
        OSError: If the file cannot be written.
        ValueError: If the ending of its name is of no format.
    """
    audio_format, timebase = format_of(path), synthesizer.timebase
    layout = AudioLayout(timebase.sample_rate, synthesizer.bundle.codec.num_channels)
    provenance = provenance_of(synthesizer.bundle.digest, request.seed)
    num_samples, first_s = 0, 0.0
    began = time.perf_counter()
    with closing(synthesizer.pieces(request)) as pieces:  # type: ignore[type-var]  # a generator
        piece: Piece | None = next(pieces)  # a request that is refused leaves no file
        with _written_aside(path) as file:
            encoder = AudioEncoder(audio_format, layout, file=file, provenance=provenance)
            while piece is not None:
                if piece.waveform.shape[-1]:
                    first_s = first_s or time.perf_counter() - began
                encoder.encode(pcm_bytes(piece.waveform.numpy()))
                num_samples += piece.waveform.shape[-1]
                is_capped = piece.is_capped
                piece = next(pieces, None)
            encoder.finish()
            elapsed_s = time.perf_counter() - began
    duration_s = timebase.duration_s(num_samples)
    return MadeFile(path, duration_s, elapsed_s, first_s, is_capped)


@contextmanager
def _written_aside(path: Path) -> Iterator[BinaryIO]:
    """A file beside the target that takes its place when the block succeeds."""
    aside = path.parent / f".aside-{uuid.uuid4().hex}"
    try:
        if path.is_dir():  # known only at the end otherwise
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("wb") as file:
            yield file
        os.replace(aside, path)
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        aside.unlink(missing_ok=True)
