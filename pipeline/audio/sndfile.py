"""libsndfile as a decoder: WAV, FLAC, Ogg Vorbis and Opus, MP3, AIFF and more."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import soundfile
from jaxtyping import Float

from pipeline.audio.faults import AudioError, AudioFault, AudioInfo

_BLOCK = 65_536
_STEP = 1_024  # frames a call in a damaged block: at most this many good ones are lost
_SHORT_CHUNK = re.compile(r"^\s*(?:data|SSND)\s*:\s*(\d+)\s*\(should be (\d+)\)", re.MULTILINE)
_INEXACT = ("OPUS", "MPEG_LAYER_I", "MPEG_LAYER_II", "MPEG_LAYER_III")
_STREAMED = 0x7FFF_0000  # lengths from here on are what streaming writers leave
_XING = re.compile(rb"(?:Xing|Info)\0\0\0(.)(.{8})", re.DOTALL)
_HAS_FRAMES, _HAS_BYTES = 1, 2
_MP3_HEAD_BYTES = 4_096


def id3_bytes(head: bytes) -> int:
    """Size of the ID3v2 tag that a file begins with; 0 if its first 10 bytes are none's."""
    if not head.startswith(b"ID3"):
        return 0
    size = 0
    for byte in head[6:10]:
        size = size << 7 | byte & 0x7F
    return 10 + size


class SndfileDecoder:
    """libsndfile; it looks at the contents, never at the name."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        try:
            self._file = soundfile.SoundFile(stream)
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
        self.can_seek = self._file.seekable()  # GSM and G.72x cannot
        # Opus takes a while to forget where it was started; MP3 rounds the last bit otherwise.
        self.seeks_exactly = self.can_seek and self._file.subtype not in _INEXACT
        self.warnings: list[str] = []

    def close(self) -> None:
        """Close libsndfile's handle; the stream stays open."""
        self._file.close()

    def blocks(self, start: int) -> Iterator[Float[np.ndarray, "samples channels"]]:
        """Samples from `start` on, a bounded number at a time."""
        done = start
        try:
            if start:
                self._go_to(start)
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

    def _go_to(self, start: int) -> None:
        if self.can_seek:
            self._file.seek(start)
            return
        while start > 0:
            count = len(self._file.read(min(start, _BLOCK), dtype="float32"))
            start = start - count if count else 0

    def _fill(self, buffer: Float[np.ndarray, "samples channels"], start: int) -> tuple[int, bool]:
        """Decode into the buffer from `start` on: number of samples, and whether it is full."""
        try:
            # One call a block: soundfile seeks twice in each, which costs more than decoding.
            filled = len(self._file.read(out=buffer, dtype="float32"))
            return filled, filled == len(buffer)
        except soundfile.LibsndfileError:
            self.warnings.append("damaged: decoding stopped before the end")
        return self._refill(buffer, start), False

    def _refill(self, buffer: Float[np.ndarray, "samples channels"], start: int) -> int:
        """Decode the good part of a damaged block in small steps; an error cannot be skipped."""
        self._stream.seek(0)
        done = -start
        with (
            contextlib.suppress(soundfile.LibsndfileError),
            soundfile.SoundFile(self._stream) as again,
        ):
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
        if self.info.container == "OGG":
            self._look_for_more_ogg()
        elif self.info.container == "MP3":
            self._look_for_more_mp3()

    def _look_for_more_ogg(self) -> None:
        """Whether the last page ends the stream, and is one of the stream that the first began."""
        first = _at(self._stream, 0, 18)
        size = self._stream.seek(0, io.SEEK_END)
        tail = _at(self._stream, max(0, size - 2 * 65_536), 2 * 65_536)
        last = tail.rfind(b"OggS\x00")
        page = tail[last : last + 18] if last >= 0 else b""
        if len(page) < 6 or not page[5] & 0x04:
            self.warnings.append("truncated: the last Ogg page does not end the stream")
        elif page[14:18] != first[14:18]:
            self.warnings.append(
                "truncated: only the first of several Ogg streams in the file was read"
            )

    def _look_for_more_mp3(self) -> None:
        """Whether another file follows the one whose length the first header tells."""
        start = id3_bytes(_at(self._stream, 0, 10))
        found = _XING.search(_at(self._stream, start, _MP3_HEAD_BYTES))
        if found is None or not found[1][0] & _HAS_BYTES:
            return
        at = 4 if found[1][0] & _HAS_FRAMES else 0
        end = start + int.from_bytes(found[2][at : at + 4], "big")
        after = _at(self._stream, end, 3)
        if after == b"ID3" or (len(after) == 3 and after[0] == 0xFF and after[1] & 0xE6 == 0xE2):
            self.warnings.append("truncated: another MP3 follows in the file and was not read")


def _at(stream: BinaryIO, start: int, size: int) -> bytes:
    stream.seek(start)
    return stream.read(size)
