"""The decoder of an audio file, chosen by its first bytes: libsndfile, or ffmpeg.

libsndfile reads WAV, FLAC, Ogg Vorbis and Opus, MP3, AIFF and more. The bundled ffmpeg reads MP4,
AAC, WebM and their kin, and only where the first bytes say so: ffmpeg guesses at anything, and a
text file that it takes for a playlist could name other files.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from jaxtyping import Float

from pipeline.audio.faults import (
    AudioError,
    AudioFault,
    AudioInfo,
    Decoder,
    errors_of_decoder,
)
from pipeline.audio.ffmpeg import FfmpegDecoder
from pipeline.audio.sndfile import SndfileDecoder, id3_bytes

_HEAD_BYTES = 16
_SNDFILE_MAGIC = (b"RIFF", b"RIFX", b"RF64", b"fLaC", b"OggS", b"FORM", b"ID3", b"caff", b".snd")
_MPEG_SYNC = (b"\xff\xfb", b"\xff\xfa", b"\xff\xf3", b"\xff\xf2")
_ADTS_SYNC = (b"\xff\xf1", b"\xff\xf9")  # AAC, MPEG-4 and MPEG-2
_FFMPEG_MAGIC = (
    *_ADTS_SYNC,
    b"\x1aE\xdf\xa3",  # Matroska, WebM
    b"\x30\x26\xb2\x75",  # ASF, WMA
    b"#!AMR",
    b"wvpk",
    b"MAC ",
    b"TTA1",
)


def is_audio(head: bytes) -> bool:
    """Whether the first bytes of a file (16 or more) are those of a known audio container."""
    return _needs_ffmpeg(head) or head.startswith(_SNDFILE_MAGIC) or head[:2] in _MPEG_SYNC


def open_decoder(stream: BinaryIO) -> Decoder:
    """The decoder for a seekable stream, by its first bytes; the caller closes both.

    Raises:
        AudioError: If the stream is empty or no decoder reads it.
        MachineError: If the stream cannot be read.
    """
    with errors_of_decoder(stream):
        head = stream.read(_HEAD_BYTES)
        if not head:
            raise AudioError(AudioFault.EMPTY_AUDIO, "the file has 0 bytes")
        stream.seek(id3_bytes(head))  # a tag before MP3, or before AAC
        is_adts = stream.read(2) in _ADTS_SYNC
        stream.seek(0)
        opener = FfmpegDecoder if is_adts or _needs_ffmpeg(head) else SndfileDecoder
        return _Guarded(opener(stream), stream)


def _needs_ffmpeg(head: bytes) -> bool:
    return head[4:8] == b"ftyp" or head.startswith(_FFMPEG_MAGIC)


class _Guarded:
    """A decoder whose every failure is an `AudioError`, or a `MachineError` if storage failed."""

    def __init__(self, decoder: Decoder, stream: BinaryIO) -> None:
        self._decoder = decoder
        self._stream = stream
        self.info: AudioInfo = decoder.info
        self.warnings = decoder.warnings
        self.can_seek = decoder.can_seek
        self.seeks_exactly = decoder.seeks_exactly

    def close(self) -> None:
        """Release the decoder; the stream stays open."""
        with contextlib.suppress(Exception):  # its samples were taken; nothing is lost
            self._decoder.close()

    def blocks(self, start: int) -> Iterator[Float[np.ndarray, "samples channels"]]:
        """Samples from `start` on, all of one width."""
        blocks = self._decoder.blocks(start)
        while True:
            with errors_of_decoder(self._stream):
                block = next(blocks, None)
                if block is not None and block.shape[1] != self.info.num_channels:
                    raise AudioError(
                        AudioFault.UNREADABLE,
                        f"a block of {block.shape[1]} channels in a file of "
                        f"{self.info.num_channels}",
                    )
            if block is None:
                return
            yield block
