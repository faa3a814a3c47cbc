"""Decoders of audio files: libsndfile, and ffmpeg for what it alone reads.

libsndfile reads WAV, FLAC, Ogg Vorbis and Opus, MP3, AIFF and more. The bundled ffmpeg reads MP4,
AAC, WebM and their kin, and only where the first bytes say so: ffmpeg guesses at anything, and a
text file that it takes for a playlist could name other files.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, BinaryIO, Protocol

import numpy as np
import soundfile
from jaxtyping import Float

_BLOCK = 65_536
_STEP = 1_024  # frames a call in a damaged block: at most this many good ones are lost
_SHORT_CHUNK = re.compile(r"^\s*(?:data|SSND)\s*:\s*(\d+)\s*\(should be (\d+)\)", re.MULTILINE)
_STREAMED = 0x7FFF_0000  # lengths from here on are what streaming writers leave


class AudioFault(StrEnum):
    """What is wrong with an audio file; the values are reject reasons."""

    UNREADABLE = "unreadable"
    EMPTY_AUDIO = "empty_audio"
    TOO_LONG = "too_long"
    NON_FINITE = "non_finite"
    OUT_OF_RANGE = "out_of_range"
    SPAN_OUTSIDE_AUDIO = "span_outside_audio"
    MISSING_AUDIO = "missing_audio"


class AudioError(Exception):
    """An audio file, or a span of it, cannot be used."""

    def __init__(self, reason: AudioFault, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[Any, ...]:
        return AudioError, (self.reason, self.detail)


@dataclass(frozen=True)
class AudioInfo:
    """What a header promises.

    Attributes:
        sample_rate: Hz.
        num_channels: Channels.
        num_samples: Samples per channel; None where the container does not say.
        container: Name of the container format.
    """

    sample_rate: int
    num_channels: int
    num_samples: int | None
    container: str


class Decoder(Protocol):
    """An open audio file."""

    info: AudioInfo
    warnings: list[str]

    def blocks(self, start: int) -> Iterator[Float[np.ndarray, "samples channels"]]:
        """Samples from `start` on, block by block; a damaged rest becomes a warning."""


def is_audio(head: bytes) -> bool:
    """Whether the first bytes of a file (16 or more) are those of a known audio container."""
    return _needs_ffmpeg(head) or head.startswith(_SNDFILE_MAGIC) or head[:2] in _MPEG_SYNC


_SNDFILE_MAGIC = (b"RIFF", b"RIFX", b"RF64", b"fLaC", b"OggS", b"FORM", b"ID3", b"caff", b".snd")
_MPEG_SYNC = (b"\xff\xfb", b"\xff\xfa", b"\xff\xf3", b"\xff\xf2")
_FFMPEG_MAGIC = (
    b"\x1aE\xdf\xa3",  # Matroska, WebM
    b"\xff\xf1",  # AAC in ADTS, MPEG-4
    b"\xff\xf9",  # AAC in ADTS, MPEG-2
    b"\x30\x26\xb2\x75",  # ASF, WMA
    b"#!AMR",
    b"wvpk",
    b"MAC ",
    b"TTA1",
)


def _needs_ffmpeg(head: bytes) -> bool:
    return head[4:8] == b"ftyp" or head.startswith(_FFMPEG_MAGIC)


@contextlib.contextmanager
def decoder_of(stream: BinaryIO) -> Iterator[Decoder]:
    """The decoder for a seekable stream, by its first bytes.

    Raises:
        AudioError: If the stream is empty or no decoder reads it.
    """
    head = stream.read(16)
    if not head:
        raise AudioError(AudioFault.EMPTY_AUDIO, "the file has 0 bytes")
    stream.seek(0)
    opener = _FfmpegDecoder if _needs_ffmpeg(head) else _SndfileDecoder
    with contextlib.closing(opener(stream)) as decoder:
        yield decoder


class _SndfileDecoder:
    """libsndfile; it looks at the contents, never at the name."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        try:
            self._file = self._open()
        except (soundfile.LibsndfileError, TypeError) as error:
            text = getattr(error, "error_string", str(error)).rstrip(".")
            raise AudioError(AudioFault.UNREADABLE, f"no decoder reads it: {text}") from error
        num_samples = self._file.frames
        self.info = AudioInfo(
            self._file.samplerate,
            self._file.channels,
            num_samples if 0 <= num_samples < 2**62 else None,
            self._file.format,
        )
        self.warnings: list[str] = []

    def _open(self) -> soundfile.SoundFile:
        # A descriptor is read without a Python callback for every few bytes.
        is_plain = isinstance(self._stream, io.FileIO)
        source = self._stream.fileno() if is_plain else self._stream
        return soundfile.SoundFile(source, closefd=not is_plain)

    def close(self) -> None:
        self._file.close()

    def blocks(self, start: int) -> Iterator[Float[np.ndarray, "samples channels"]]:
        """Samples from `start` on, a bounded number at a time."""
        done = start
        try:
            if start:
                self._file.seek(start)
        except soundfile.LibsndfileError as error:
            raise AudioError(AudioFault.UNREADABLE, f"cannot seek: {error}") from error
        is_whole = True
        while is_whole:
            buffer = np.empty((_BLOCK, self.info.num_channels), dtype=np.float32)
            filled, is_whole = self._fill(buffer, done)
            done += filled
            if filled:
                yield buffer[:filled]
        self._look_for_truncation(done)

    def _fill(self, buffer: Float[np.ndarray, "samples channels"], start: int) -> tuple[int, bool]:
        """Decode from `start` on: how many samples, and whether the buffer is full of them."""
        try:
            # One call a block: soundfile seeks twice in each, which costs more than decoding.
            filled = len(self._file.read(out=buffer, dtype="float32"))
            return filled, filled == len(buffer)
        except soundfile.LibsndfileError:
            self.warnings.append("damaged: decoding stopped before the end")
        return self._refill(buffer, start), False

    def _refill(self, buffer: Float[np.ndarray, "samples channels"], start: int) -> int:
        """What of a damaged block can be decoded, in small steps; an error leaves no way back."""
        self._stream.seek(0)
        done = -start
        with contextlib.suppress(soundfile.LibsndfileError), self._open() as again:
            while done < len(buffer):
                wanted = min(_STEP, len(buffer) - done, -done if done < 0 else len(buffer))
                part = again.read(wanted, dtype="float32", always_2d=True)
                if done >= 0:
                    buffer[done : done + len(part)] = part
                done += len(part)
                if len(part) < wanted:
                    break
        return max(0, done)

    def _look_for_truncation(self, num_decoded: int) -> None:
        promised = self.info.num_samples
        if promised is not None and num_decoded < promised:
            self.warnings.append(f"truncated: {promised} samples promised, {num_decoded} there")
        for declared, actual in _SHORT_CHUNK.findall(self._file.extra_info):
            if int(actual) < int(declared) < _STREAMED:
                self.warnings.append(f"truncated: {declared} bytes promised, {actual} there")
        if self.info.container == "OGG" and not _ends_ogg(self._stream):
            self.warnings.append("truncated: the last Ogg page does not end the stream")


class _FfmpegDecoder:
    """PyAV on the file's bytes: no protocol but memory, so nothing else can be opened."""

    def __init__(self, stream: BinaryIO) -> None:
        import av

        self._errors = av.FFmpegError
        try:
            self._container = av.open(stream, mode="r", metadata_errors="replace")
        except (self._errors, ValueError) as error:
            raise AudioError(AudioFault.UNREADABLE, f"no decoder reads it: {error}") from error
        if not self._container.streams.audio:
            self._container.close()
            raise AudioError(AudioFault.UNREADABLE, "the file holds no audio stream")
        track = self._container.streams.audio[0]
        self.info = AudioInfo(
            track.codec_context.sample_rate or 0,
            track.codec_context.channels or 0,
            None,
            self._container.format.name,
        )
        self.warnings: list[str] = []

    def close(self) -> None:
        self._container.close()

    def blocks(self, start: int) -> Iterator[Float[np.ndarray, "samples channels"]]:
        import av

        plane = av.AudioResampler(format="fltp", rate=self.info.sample_rate)
        skipped = 0
        try:
            for frame in self._container.decode(audio=0):
                for converted in plane.resample(frame):
                    block = converted.to_ndarray().astype(np.float32, copy=False).T
                    drop = min(start - skipped, len(block))
                    skipped += drop
                    if len(block) > drop:
                        yield block[drop:]
        except self._errors as error:
            self.warnings.append(f"damaged: decoding stopped, {error}")


def _ends_ogg(stream: BinaryIO) -> bool:
    """Whether the last page header found near the end carries the end-of-stream flag."""
    size = stream.seek(0, io.SEEK_END)
    stream.seek(max(0, size - 2 * 65_536))
    tail = stream.read()
    last = tail.rfind(b"OggS\x00")
    return last >= 0 and len(tail) > last + 5 and bool(tail[last + 5] & 0x04)
