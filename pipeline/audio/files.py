"""Audio files as float32 waveforms, by content and not by name, in bounded memory."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import math
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import BinaryIO, cast

import numpy as np
import soxr
from jaxtyping import Float

from model.timebase import resampled_length, round_half_up
from pipeline.audio.containers import parent_of, read_member, split_member
from pipeline.audio.decoders import is_audio, open_decoder
from pipeline.audio.faults import AudioError, AudioFault, AudioInfo, Decoder
from pipeline.audio.spans import OnePass, Passes, SpanDecoder
from pipeline.faults import SteadyFile, retried

__all__ = [
    "Audio",
    "AudioError",
    "AudioFault",
    "AudioInfo",
    "AudioStream",
    "cancels",
    "file_sha256",
    "is_audio",
    "open_audio",
    "probe",
    "read_audio",
    "resample",
    "to_channels",
]

RATES_HZ = (1_000, 768_000)
"""Range of plausible sample rates; a header with another one counts as damaged."""
MAX_CHANNELS = 64
"""Largest plausible number of channels; a header with more counts as damaged."""
MAX_OVERSHOOT = 2.0
"""Largest sample magnitude that is still scaled back into [-1, 1]: lossy decoders overshoot."""
REMOTE_BYTES = 64 * 2**20
"""Files on other machines up to this size are fetched whole; larger ones in pieces of 1 MiB."""
SPAN_TOLERANCE_S = 0.1
"""Time by which a span may end beyond its file, seconds; it is then cut."""


@dataclass(frozen=True)
class Audio:
    """A decoded file or span.

    Attributes:
        waveform: Samples in [-1, 1].
        sample_rate: Hz.
        warnings: `code: detail` of what was odd but did not prevent reading.
    """

    waveform: Float[np.ndarray, "channels samples"]
    sample_rate: int
    warnings: tuple[str, ...] = ()


@dataclass
class AudioStream:
    """An open file or span: its rate is known at once, the rest after the last block.

    Attributes:
        info: Facts about the whole file.
        warnings: `code: detail`; complete after the last block.
    """

    info: AudioInfo
    warnings: list[str]
    _decoder: Decoder = field(repr=False)
    _start: int = 0
    _end: int | None = None

    def blocks(self) -> Iterator[Float[np.ndarray, "channels samples"]]:
        """The samples as they are stored, not checked and not scaled.

        Raises:
            AudioError: If the file has no samples, or ends before the span does.
        """
        done = 0
        wanted = math.inf if self._end is None else self._end - self._start
        for block in self._decoder.blocks(self._start):
            part = block[: int(min(len(block), wanted - done))]
            if len(part):
                done += len(part)
                yield np.ascontiguousarray(part.T)
            if done >= wanted:
                return
        rate = self.info.sample_rate
        if self._end is None:
            if done == 0:
                damage = [text for text in self.warnings if text.startswith("damaged: ")]
                if damage:
                    raise AudioError(AudioFault.UNREADABLE, f"no sample is decoded: {damage[0]}")
                raise AudioError(AudioFault.EMPTY_AUDIO, "the file has no samples")
        elif done == 0 or wanted - done > SPAN_TOLERANCE_S * rate:
            raise AudioError(
                AudioFault.SPAN_OUTSIDE_AUDIO,
                f"the span ends at {self._end / rate:.3f} s, the audio at "
                f"{(self._start + done) / rate:.3f} s",
            )


@contextlib.contextmanager
def open_audio(
    uri: str, start_s: float | None = None, end_s: float | None = None, *, is_exact: bool = True
) -> Iterator[AudioStream]:
    """Open a file, or a span of it, for decoding block by block.

    Args:
        uri: Path, URI, or an address inside a tar or table; see `pipeline.audio.containers`.
        start_s: Start of the span, seconds; None is the start of the file.
        end_s: End of the span, seconds; None is the end of the file.
        is_exact: Whether a span must be the very samples that decoding the whole file gives. MP3
            and Opus are then decoded from the start, in one pass for all spans of a file. False
            lets them seek, which costs the last bit, or 80 ms of settling.

    Raises:
        AudioError: If no decoder reads it, its header is absurd, or the span is.
        MachineError: If its bytes cannot be read: a fault of storage, not of the file.
    """
    is_span = bool(start_s) or end_s is not None
    if is_span:
        _check_span(start_s or 0.0, end_s)
    opened = _span_decoder(uri, start_s or 0.0, is_exact) if is_span else _decoder(uri)
    with opened as decoder:
        info = decoder.info
        low, high = RATES_HZ
        if not low <= info.sample_rate <= high:
            raise AudioError(
                AudioFault.UNREADABLE,
                f"the header says {info.sample_rate} Hz; believed are {low} to {high} Hz",
            )
        if not 1 <= info.num_channels <= MAX_CHANNELS:
            raise AudioError(
                AudioFault.UNREADABLE,
                f"the header says {info.num_channels} channels; believed are 1 to {MAX_CHANNELS}",
            )
        start = round_half_up((start_s or 0.0) * info.sample_rate)
        end = None if end_s is None else round_half_up(end_s * info.sample_rate)
        if info.num_samples is not None and 0 < info.num_samples <= start:
            raise AudioError(
                AudioFault.SPAN_OUTSIDE_AUDIO,
                f"the span starts at {start_s} s, the audio ends at "
                f"{info.num_samples / info.sample_rate:.3f} s",
            )
        yield AudioStream(info, decoder.warnings, decoder, start, end)


def probe(uri: str) -> AudioInfo:
    """The facts that the header of a file states, without decoding it.

    Raises:
        AudioError: If no decoder reads it, or its header is absurd.
    """
    with open_audio(uri) as stream:
        return stream.info


def read_audio(
    uri: str,
    start_s: float | None = None,
    end_s: float | None = None,
    *,
    max_duration_s: float | None = None,
    is_exact: bool = True,
) -> Audio:
    """Decode a file or span into memory.

    A slight overshoot, which lossy decoders produce, is scaled back into [-1, 1] and noted.

    Args:
        uri: Path, URI, or an address inside a tar or table; see `pipeline.audio.containers`.
        start_s: Start of the span, seconds; None is the start of the file.
        end_s: End of the span, seconds; None is the end of the file.
        max_duration_s: Refuse anything longer before it fills the memory; None takes all.
        is_exact: Whether spans are cut to the sample, as in `open_audio`.

    Raises:
        AudioError: If it is unreadable, empty, too long, not finite or far out of range, or if the
            span lies outside.
    """
    with open_audio(uri, start_s, end_s, is_exact=is_exact) as stream:
        rate = stream.info.sample_rate
        limit = math.inf if max_duration_s is None else max_duration_s * rate
        blocks, num_samples = [], 0
        for block in stream.blocks():
            blocks.append(block)
            num_samples += block.shape[1]
            if num_samples > limit:
                raise AudioError(
                    AudioFault.TOO_LONG, f"longer than the limit of {max_duration_s} s"
                )
        waveform = np.concatenate(blocks, axis=1)
        warnings = list(stream.warnings)
    peak = float(np.abs(waveform).max())
    if not math.isfinite(peak):
        raise AudioError(AudioFault.NON_FINITE, "NaN or infinite samples")
    if peak > MAX_OVERSHOOT:
        raise AudioError(
            AudioFault.OUT_OF_RANGE,
            f"peak {peak:g}, limit {MAX_OVERSHOOT:g}: float samples must be scaled to [-1, 1]",
        )
    if peak > 1.0:
        waveform = waveform / np.float32(peak)
        warnings.append(f"scaled: peak {peak:.3f} brought back to 1")
    return Audio(waveform, rate, tuple(warnings))


def resample(
    waveform: Float[np.ndarray, "channels samples"], source_rate: int, target_rate: int
) -> Float[np.ndarray, "channels samples"]:
    """Band-limited change of rate; the length is `timebase.resampled_length`."""
    if source_rate == target_rate:
        return waveform
    length = resampled_length(waveform.shape[1], source_rate, target_rate)
    changed = soxr.resample(np.ascontiguousarray(waveform.T), source_rate, target_rate).T
    changed = changed[:, :length].astype(np.float32)
    return np.pad(changed, ((0, 0), (0, length - changed.shape[1])))


def to_channels(
    waveform: Float[np.ndarray, "channels samples"], num_channels: int
) -> Float[np.ndarray, "channels samples"]:
    """The waveform with another number of channels.

    Down to one: the mean, or the first channel where the mean cancels (channels in antiphase).
    Up: copies of that one.
    """
    if waveform.shape[0] == num_channels:
        return waveform
    mono = waveform.mean(axis=0, keepdims=True, dtype=np.float32)
    if waveform.shape[0] > 1 and cancels(_power(mono)[0], float(_power(waveform).max())):
        mono = waveform[:1]
    return np.repeat(mono, num_channels, axis=0)


def cancels(mix_power: float, channel_power: float) -> bool:
    """Whether the mean of the channels lost 20 dB against the loudest of them."""
    return mix_power < 0.01 * channel_power


def file_sha256(uri: str) -> str:
    """SHA-256 of a file's bytes.

    Raises:
        AudioError: If it cannot be opened.
    """
    digest = hashlib.sha256()
    with _open_binary(uri) as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _check_span(start_s: float, end_s: float | None) -> None:
    end = math.inf if end_s is None else end_s
    if not (math.isfinite(start_s) and start_s >= 0 and end > start_s):
        raise AudioError(
            AudioFault.SPAN_OUTSIDE_AUDIO,
            f"the span {start_s} s to {end_s} s is not a span: 0 <= start < end is needed",
        )


@contextlib.contextmanager
def _decoder(uri: str) -> Iterator[Decoder]:
    with _open_binary(uri) as stream, contextlib.closing(open_decoder(stream)) as decoder:
        yield decoder


@contextlib.contextmanager
def _span_decoder(uri: str, start_s: float, is_exact: bool) -> Iterator[Decoder]:
    """A decoder for a span: one that seeks, or a reader of the pass that serves all spans."""
    file = (uri, *_stamp(uri))
    one_pass = _passes().find(file)
    if one_pass is None or not one_pass.reaches(round_half_up(start_s * one_pass.info.sample_rate)):
        one_pass = OnePass(partial(_decoder, uri))
        decoder = one_pass.decoder
        if decoder.seeks_exactly or (decoder.can_seek and not is_exact):
            with contextlib.closing(one_pass):
                yield decoder
            return
        _passes().put(file, one_pass)
    yield SpanDecoder(one_pass)


@lru_cache(maxsize=1)
def _passes() -> Passes:
    return Passes()


def _stamp(uri: str) -> tuple[int | None, int | None]:
    """Size and modification time of the file that holds the audio; None if there is none."""
    member = split_member(uri)
    folder, name = parent_of(member[0] if member and not os.path.exists(uri) else uri)
    info = folder.info(name)
    return info.size, info.mtime_ns


@contextlib.contextmanager
def _open_binary(uri: str) -> Iterator[BinaryIO]:
    """Open the bytes of a file, with errors of the storage told apart from errors of the file."""
    try:
        stream = _opened(uri)
    except FileNotFoundError as error:
        raise AudioError(AudioFault.MISSING_AUDIO, "there is no such file") from error
    except OSError as error:
        text = error.strerror or str(error)
        raise AudioError(AudioFault.UNREADABLE, f"cannot be opened: {text}") from error
    raw = getattr(stream, "raw", None)
    with stream:
        try:
            yield stream
        except OSError as error:  # of a decoder: a fault of storage ends the stream for it
            text = error.strerror or str(error)
            raise AudioError(AudioFault.UNREADABLE, f"cannot be read: {text}") from error
        finally:
            if isinstance(raw, SteadyFile) and raw.fault is not None:
                raise raw.fault


def _opened(uri: str) -> BinaryIO:
    """Open a file of any kind.

    Raises:
        OSError: If the file cannot be read, for a reason that lies in the file.
        MachineError: If storage keeps failing, or is there no more.
    """
    member = split_member(uri)
    is_local = "://" not in uri
    if is_local and (member is None or os.path.exists(uri)):
        return _open_local(uri)
    if member:
        if is_local:
            retried(lambda: _is_there(member[0]), f"read {uri}")
        return io.BytesIO(retried(lambda: read_member(*member), f"read {uri}"))
    folder, name = parent_of(uri)
    info = folder.info(name)
    if (info.size or 0) <= REMOTE_BYTES:
        return io.BytesIO(_fetch(uri, info.size, info.mtime_ns))
    return _steady(lambda: folder.filesystem.open_input_file(folder.join(name)), uri)


def _open_local(path: str) -> BinaryIO:
    if not retried(lambda: _is_there(path), f"read {path}"):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    return _steady(lambda: open(path, "rb", buffering=0), path)


def _is_there(path: str) -> bool:
    """Whether a file is there; a folder that is empty or gone as well is taken for a lost mount."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        parent = os.path.dirname(path) or "."
        with (
            contextlib.suppress(FileNotFoundError, NotADirectoryError),
            os.scandir(parent) as there,
        ):
            if next(there, None) is not None:
                return False
        raise OSError(
            errno.ENOTCONN, f"the folder is gone or empty, its mount may be lost: {parent}"
        ) from None
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", path)
    return True


def _steady(opener: Callable[[], BinaryIO], uri: str) -> BinaryIO:
    steady = SteadyFile(opener, f"read {uri}", ends_at_fault=True)
    return cast(BinaryIO, io.BufferedReader(steady, 2**20))


@lru_cache(maxsize=1)
def _fetch(uri: str, _size: int | None, _mtime_ns: int | None) -> bytes:
    """A whole file; kept for the next span of it, or its digest."""
    folder, name = parent_of(uri)
    return folder.read_bytes(name)


def _power(waveform: Float[np.ndarray, "channels samples"]) -> np.ndarray:
    return np.square(waveform, dtype=np.float64).mean(axis=1)
