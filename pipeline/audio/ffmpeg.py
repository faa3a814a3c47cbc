"""ffmpeg as a decoder: MP4, AAC, WebM and their kin, on the file's bytes alone.

The format of the first frame is that of the file. Frames of another channel count, sample format
or rate, as broadcast and concatenated AAC has them, are brought to it and named in a warning.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from itertools import chain
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Float

from pipeline.audio.faults import AudioError, AudioFault, AudioInfo

_BLOCK = 32_768
_MAX_CHANGES = 4  # changes of format that are named
_SEARCHED_BYTES = 2**20  # at either end of a file, for the name of its codec
_CODEC_NAME = re.compile(
    rb"soun.{1,4096}?stsd.{12}(?P<mp4>[\x20-\x7e]{4})"
    rb"|\x86(?P<size>[\x82-\xa0])(?P<matroska>A_[A-Z0-9_/]+)",
    re.DOTALL,
)


class FfmpegDecoder:
    """PyAV on a stream: no protocol but memory, so that nothing else can be opened.

    It never seeks: a decoder's state, such as the noise generator of AAC, depends on all frames
    before, and the times of many containers are rounded. Spans share one pass instead; see
    `pipeline.audio.spans`.
    """

    can_seek = False
    seeks_exactly = False

    def __init__(self, stream: BinaryIO) -> None:
        import av

        self._errors = av.FFmpegError
        try:
            self._container = av.open(stream, mode="r", metadata_errors="replace")
        except (self._errors, ValueError) as error:
            raise AudioError(AudioFault.UNREADABLE, f"no decoder reads it: {error}") from error
        try:
            self._open_track(stream)
        except BaseException:  # raised again, with the container closed
            self._container.close()
            raise
        self.warnings: list[str] = []

    def _open_track(self, stream: BinaryIO) -> None:
        tracks = self._container.streams.audio
        if not tracks:
            raise AudioError(AudioFault.UNREADABLE, "the file holds no audio stream")
        track = next((track for track in tracks if track.codec_context is not None), None)
        if track is None:
            raise AudioError(
                AudioFault.UNREADABLE, f"the codec {_codec_name(stream)} is not supported"
            )
        self._frames = (frame for frame in self._container.decode(track) if frame.samples)
        try:
            self._first = next(self._frames, None)
        except self._errors as error:
            raise AudioError(AudioFault.UNREADABLE, f"no frame can be decoded: {error}") from error
        # What decoding gives may differ from the header: spectral band replication doubles the
        # rate, parametric stereo the channels.
        like = track.codec_context if self._first is None else self._first
        self.info = AudioInfo(
            like.sample_rate or 0, like.layout.nb_channels, None, self._container.format.name
        )

    def close(self) -> None:
        """Close the container; the stream stays open."""
        self._container.close()

    def blocks(self, start: int) -> Iterator[Float[np.ndarray, "samples channels"]]:
        """Samples from `start` on, many frames at a time."""
        skipped = 0
        for block in _joined(self._decoded()):
            drop = min(start - skipped, len(block))
            skipped += drop
            if len(block) > drop:
                yield block[drop:]

    def _decoded(self) -> Iterator[Float[np.ndarray, "samples channels"]]:
        """All samples in the format of the first frame."""
        if self._first is None:
            return
        form, resampler, done, changes = _form(self._first), self._resampler(self._first), 0, 0
        try:
            for frame in chain([self._first], self._frames):
                parts = []
                if _form(frame) != form:
                    changes += 1
                    if changes <= _MAX_CHANGES:
                        self._note_change(form, _form(frame), done)
                    parts = resampler.resample(None)
                    form, resampler = _form(frame), self._resampler(frame)
                for part in [*parts, *resampler.resample(frame)]:
                    if part is not None and part.samples:
                        block = _widened(part.to_ndarray(), self.info.num_channels)
                        done += len(block)
                        yield block
        except self._errors as error:
            self.warnings.append(f"damaged: decoding stopped, {error}")
        # What a change of rate holds back is flushed whether or not the rest was damaged.
        for part in resampler.resample(None):
            if part is not None and part.samples:
                yield _widened(part.to_ndarray(), self.info.num_channels)

    def _resampler(self, frame: Any) -> Any:
        import av

        # ffmpeg turns one channel into two 3 dB softer ones: that case is left to `_widened`.
        is_one_mono = 1 in (frame.layout.nb_channels, self.info.num_channels)
        layout = frame.layout if is_one_mono or self._first is None else self._first.layout
        return av.AudioResampler(format="fltp", layout=layout, rate=self.info.sample_rate)

    def _note_change(self, old: tuple[Any, ...], new: tuple[Any, ...], done: int) -> None:
        self.warnings.append(
            f"format_change: {_in_words(old)} to {_in_words(new)} at "
            f"{done / self.info.sample_rate:.3f} s, converted to {self.info.num_channels} "
            f"channels, {self.info.sample_rate} Hz"
        )


def _joined(
    frames: Iterator[Float[np.ndarray, "samples channels"]],
) -> Iterator[Float[np.ndarray, "samples channels"]]:
    """Frames in blocks of at least `_BLOCK` samples; the last may be shorter."""
    held: list[Float[np.ndarray, "samples channels"]] = []
    for frame in frames:
        held.append(frame)
        if sum(map(len, held)) >= _BLOCK:
            yield np.concatenate(held)
            held = []
    if held:
        yield np.concatenate(held)


def _form(frame: Any) -> tuple[Any, ...]:
    return frame.layout.nb_channels, frame.layout.name, frame.sample_rate, frame.format.name


def _in_words(form: tuple[Any, ...]) -> str:
    return f"{form[0]} channels ({form[1]}), {form[2]} Hz, {form[3]}"


def _widened(
    planes: Float[np.ndarray, "channels samples"], num_channels: int
) -> Float[np.ndarray, "samples channels"]:
    """Planes with samples first: one channel is copied, several are averaged to one."""
    if len(planes) != num_channels:
        planes = np.repeat(planes.mean(axis=0, keepdims=True), num_channels, axis=0)
    block: Float[np.ndarray, "samples channels"] = planes.T.astype(np.float32, copy=False)
    return block


def _codec_name(stream: BinaryIO) -> str:
    """The codec's name as MP4 or Matroska writes it, quoted; a word where none is found."""
    size = stream.seek(0, io.SEEK_END)
    for start in {0, max(0, size - _SEARCHED_BYTES)}:
        stream.seek(start)
        found = _CODEC_NAME.search(stream.read(_SEARCHED_BYTES) or b"")
        if found and found["mp4"]:
            return repr(found["mp4"].decode().strip())
        if found:
            return repr(found["matroska"][: found["size"][0] & 0x7F].decode())
    return "of the audio stream"
