"""Incremental audio encoders: PCM in, the bytes of one file out, streamed or whole.

WAV and PCM are written here, the other formats by FFmpeg through PyAV. The header of a streamed
file is sent before its length is known: WAV says 0xFFFFFFFF, FLAC zero samples, MP3
has no Xing header and keeps the encoder's delay and padding (up to 0.1 s at 16 kHz). A whole file
has true sizes. AAC in ADTS has no field for padding in either form.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import asdict
from fractions import Fraction
from functools import partial
from typing import Any, BinaryIO

import av
import numpy as np

from pipeline.serving.formats import AudioLayout, Format, wav_header
from pipeline.serving.provenance import Provenance

_CHANNELS = {1: "mono", 2: "stereo"}
_BITS_PER_CHANNEL = 64_000
"""Bit rate of a channel in the lossy formats; transparent for speech."""
_CODECS = {
    "mp3": ("mp3", "libmp3lame"),
    "opus": ("ogg", "libopus"),
    "aac": ("adts", "aac"),
    "flac": ("flac", "flac"),
}
"""Container and codec of FFmpeg by format."""
_OPTIONS = {
    "flush_packets": "1",  # every packet is given out at once
    "fflags": "+bitexact",  # the same audio is the same bytes: Ogg draws no serial number
}
_STREAM_OPTIONS = {
    "mp3": {"write_xing": "0"},  # it would stand at the front and be written last
    "opus": {"page_duration": "100000"},  # microseconds; a page is the least that is sent
}
_MIN_TEMPO = 0.5
"""Slowest tempo of one `atempo` filter; slower ones are chained."""


class AudioEncoder:
    """Encoder of the audio of one answer.

    Not safe for use from two threads at the same time.

    Args:
        audio_format: Format to make.
        source: Rate and channels of the PCM that comes in.
        target: Rate and channels to make; None keeps those of the source, or takes the next rate
            that the format knows.
        is_whole: Whether all output comes at the end, with true sizes in the header.
        file: Seekable file that is written while the audio comes, in place of all output: a whole
            file of any length then takes no memory. It is left open. None returns the output.
        tempo: Factor of speed at the same pitch; 2 halves the duration.
        provenance: Tags of the file, where its format has tags.

    Attributes:
        layout: Rate and channels of the output.
    """

    def __init__(
        self,
        audio_format: Format,
        source: AudioLayout,
        target: AudioLayout | None = None,
        *,
        is_whole: bool = False,
        file: BinaryIO | None = None,
        tempo: float = 1.0,
        provenance: Provenance | None = None,
    ) -> None:
        wanted = target or source
        rate = _rate_of(audio_format, wanted.sample_rate)
        self.layout = AudioLayout(rate, wanted.num_channels)
        self._filter = _Filter(source, self.layout, tempo)
        self._collected = io.BytesIO() if is_whole and file is None else None
        whole = self._collected if file is None else file
        self._sink: _RawSink | _FileSink
        if audio_format in ("wav", "pcm"):
            header = partial(wav_header, self.layout, provenance=provenance)
            self._sink = _RawSink(header if audio_format == "wav" else None, whole)
        else:
            tags = {} if provenance is None else asdict(provenance)
            self._sink = _FileSink(audio_format, self.layout, tags, whole)

    def encode(self, samples: bytes) -> bytes:
        """Encode PCM in the layout of `pcm_bytes`; returns the bytes that are ready, maybe none."""
        for chunk in self._filter.push(samples):
            self._sink.write(chunk)
        return self._sink.read()

    def finish(self) -> bytes:
        """Finish the file; returns the remaining bytes, or all of a whole file.

        Raises:
            ValueError: If the audio is longer than a WAV file can be.
        """
        for chunk in self._filter.finish():
            self._sink.write(chunk)
        rest = self._sink.finish()
        return rest if self._collected is None else self._collected.getvalue()


def _rate_of(audio_format: Format, rate: int) -> int:
    """The rate itself, or the next higher one that the codec supports."""
    if audio_format not in _CODECS:
        return rate
    known = av.Codec(_CODECS[audio_format][1], "w").audio_rates or [rate]
    return min((r for r in known if r >= rate), default=max(known))


class _Filter:
    """Changes tempo, rate and channels of PCM; passes it through where nothing changes."""

    def __init__(self, source: AudioLayout, target: AudioLayout, tempo: float) -> None:
        self._source = source
        self._num_samples = 0
        self._graph: Any = None
        if tempo != 1.0 or source != target:
            self._graph = _graph(source, target, tempo)

    def push(self, samples: bytes) -> Iterator[bytes]:
        """Take PCM; yields the converted PCM that is ready."""
        if self._graph is None:
            yield samples
        elif samples:
            frame = _frame(samples, self._source, self._num_samples)
            self._num_samples += frame.samples
            self._graph.push(frame)
            yield from self._pulled()

    def finish(self) -> Iterator[bytes]:
        """End the input; yields the rest of the converted PCM."""
        if self._graph is not None and self._num_samples:
            self._graph.push(None)
            yield from self._pulled()

    def _pulled(self) -> Iterator[bytes]:
        while True:
            try:
                frame = self._graph.pull()
            except (av.BlockingIOError, av.EOFError):
                return
            yield frame.to_ndarray().astype("<i2").tobytes()


class _RawSink:
    """PCM after an optional header, a function of the number of bytes of PCM.

    Args:
        header: Makes the header; None has none.
        whole: Seekable file to write, with true sizes; None is a stream.
    """

    def __init__(
        self, header: Callable[[int | None], bytes] | None, whole: BinaryIO | None
    ) -> None:
        self._header = header or (lambda _: b"")
        self._whole = whole
        self._file = whole or _Pipe()
        self._num_bytes = 0
        self._file.write(self._header(None))

    def write(self, samples: bytes) -> None:
        """Append PCM."""
        self._num_bytes += len(samples)
        self._file.write(samples)

    def read(self) -> bytes:
        """Bytes of the stream since the last call."""
        return self._file.taken() if isinstance(self._file, _Pipe) else b""

    def finish(self) -> bytes:
        """The remaining bytes of the stream; a file gets its size into the header."""
        if self._whole is not None:
            self._whole.seek(0)
            self._whole.write(self._header(self._num_bytes))
        return self.read()


class _FileSink:
    """A container of FFmpeg.

    Args:
        audio_format: Format with a container.
        layout: Rate and channels.
        tags: Metadata of the file.
        whole: Seekable file to write, with true sizes; None is a stream.
    """

    def __init__(
        self,
        audio_format: Format,
        layout: AudioLayout,
        tags: dict[str, str],
        whole: BinaryIO | None,
    ) -> None:
        container, codec = _CODECS[audio_format]
        self._layout = layout
        self._file = whole or _Pipe()
        options = _OPTIONS if whole else _OPTIONS | _STREAM_OPTIONS.get(audio_format, {})
        self._container = av.open(self._file, "w", format=container, container_options=options)
        self._container.metadata.update(tags)
        channels = _CHANNELS[layout.num_channels]
        self._stream = self._container.add_stream(codec, rate=layout.sample_rate, layout=channels)
        if audio_format != "flac":
            self._stream.bit_rate = _BITS_PER_CHANNEL * layout.num_channels
        self._num_samples = 0

    def write(self, samples: bytes) -> None:
        """Encode PCM."""
        if samples:
            frame = _frame(samples, self._layout, self._num_samples)
            self._num_samples += frame.samples
            self._container.mux(self._stream.encode(frame))

    def read(self) -> bytes:
        """Bytes of the stream since the last call."""
        return self._file.taken() if isinstance(self._file, _Pipe) else b""

    def finish(self) -> bytes:
        """Flush the codec and close the container; the remaining bytes of the stream."""
        self._container.mux(self._stream.encode(None))
        self._container.close()
        return self.read()


class _Pipe:
    """Output that cannot be sought in."""

    def __init__(self) -> None:
        self._ready = bytearray()

    def write(self, data: bytes) -> int:
        """Append bytes; returns their number, as a file does."""
        self._ready += data
        return len(data)

    def taken(self) -> bytes:
        """Bytes since the last call."""
        ready, self._ready = bytes(self._ready), bytearray()
        return ready


def _frame(samples: bytes, layout: AudioLayout, start: int) -> Any:
    """PCM as a frame that begins at a sample."""
    values = np.frombuffer(samples, dtype="<i2").astype(np.int16)[None]
    channels = _CHANNELS[layout.num_channels]
    frame = av.AudioFrame.from_ndarray(values, format="s16", layout=channels)
    frame.sample_rate, frame.time_base = layout.sample_rate, Fraction(1, layout.sample_rate)
    frame.pts = start
    return frame


def _graph(source: AudioLayout, target: AudioLayout, tempo: float) -> Any:
    """FFmpeg's `atempo` and `aformat`, from source to target."""
    graph = av.filter.Graph()
    channels = _CHANNELS[source.num_channels]
    nodes = [
        graph.add_abuffer(
            format="s16",
            sample_rate=source.sample_rate,
            layout=channels,
            time_base=Fraction(1, source.sample_rate),
        )
    ]
    while tempo < _MIN_TEMPO:
        nodes.append(graph.add("atempo", str(_MIN_TEMPO)))
        tempo /= _MIN_TEMPO
    if tempo != 1.0:
        nodes.append(graph.add("atempo", f"{tempo:.6f}"))
    wanted = _CHANNELS[target.num_channels]
    form = f"sample_fmts=s16:sample_rates={target.sample_rate}:channel_layouts={wanted}"
    nodes += [graph.add("aformat", form), graph.add("abuffersink")]
    graph.link_nodes(*nodes).configure()
    return graph
