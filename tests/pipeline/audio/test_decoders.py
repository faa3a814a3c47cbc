from __future__ import annotations

import errno
import io

import numpy as np
import pytest
import soundfile
from tenacity import wait_none

import pipeline.audio.decoders
import pipeline.faults
from pipeline.audio.decoders import open_decoder
from pipeline.audio.faults import AudioError, AudioInfo
from pipeline.audio.files import read_audio
from pipeline.errors import MachineError
from pipeline.faults import SteadyFile
from tests.factories.audio_files import ffmpeg_bytes, tone

RATE = 16_000


def encoded(container, subtype=None, num_samples=4 * RATE):
    sink = io.BytesIO()
    soundfile.write(sink, tone(num_samples)[0], RATE, format=container, subtype=subtype)
    return sink.getvalue()


FILES = {
    "wav": lambda: encoded("WAV"),
    "flac": lambda: encoded("FLAC"),
    "mp3": lambda: encoded("MP3"),
    "vorbis": lambda: encoded("OGG", "VORBIS"),
    "opus": lambda: encoded("OGG", "OPUS"),
    "m4a": lambda: ffmpeg_bytes(tone(4 * RATE)),
    "adts": lambda: ffmpeg_bytes(tone(4 * RATE), RATE, "adts"),
    "webm": lambda: ffmpeg_bytes(tone(3 * 48_000), 48_000, "webm", "libopus"),
}


class Failing(io.BytesIO):
    """A file on a disk that fails after some bytes."""

    good_bytes = 0

    def read(self, size=-1):
        if self.tell() + size > self.good_bytes:
            raise OSError(errno.ESTALE, "Stale file handle")
        return super().read(size)


def decode(stream):
    decoder = open_decoder(stream)
    try:
        return np.concatenate(list(decoder.blocks(0)))
    finally:
        decoder.close()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.97])
@pytest.mark.parametrize("name", FILES)
def test_a_failing_disk_is_no_fault_of_the_file(monkeypatch, name, share):
    monkeypatch.setattr(pipeline.faults, "BACKOFF", wait_none())
    payload = FILES[name]()
    file = Failing(payload)
    steady = SteadyFile(lambda: file, "read x", ends_at_fault=True)
    monkeypatch.setattr(file, "close", lambda: None)
    monkeypatch.setattr(Failing, "good_bytes", int(share * len(payload)))
    with pytest.raises(MachineError, match="Stale file handle"):
        decode(io.BufferedReader(steady, 1_024))


ERRORS = [MemoryError(), AttributeError("codec"), AssertionError(), KeyError("x"), OverflowError()]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("when", ["opened", "asked", "half way"])
def test_any_error_of_a_decoder_is_a_fault_of_its_file(monkeypatch, tmp_path, when, error):
    class Broken:
        can_seek = seeks_exactly = True

        def __init__(self, *_streams):
            if when == "opened":
                raise error
            self.info, self.warnings = AudioInfo(RATE, 1, None, "x"), []

        def blocks(self, start):
            if when == "half way":
                yield np.zeros((100, 1), np.float32)
            raise error

        def close(self):
            raise error

    monkeypatch.setattr(pipeline.audio.decoders, "SndfileDecoder", Broken)
    path = tmp_path / "a.wav"
    path.write_bytes(b"RIFF" + bytes(100))
    with pytest.raises(AudioError, match=f"unreadable: the decoder failed: {type(error).__name__}"):
        read_audio(str(path))


def test_blocks_of_another_width_are_a_fault_of_the_file(monkeypatch, tmp_path):
    class Wavering:
        can_seek = seeks_exactly = True
        warnings, info = (), AudioInfo(RATE, 1, None, "x")

        def __init__(self, *_streams):
            pass

        def blocks(self, start):
            yield np.zeros((100, 1), np.float32)
            yield np.zeros((100, 2), np.float32)

        def close(self):
            pass

    monkeypatch.setattr(pipeline.audio.decoders, "SndfileDecoder", Wavering)
    (tmp_path / "a.wav").write_bytes(b"RIFF" + bytes(100))
    with pytest.raises(AudioError, match="a block of 2 channels in a file of 1"):
        read_audio(str(tmp_path / "a.wav"))
