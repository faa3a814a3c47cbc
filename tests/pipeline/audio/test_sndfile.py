from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile

from pipeline.audio.files import AudioError, read_audio
from tests.factories.audio_files import tone

RATE = 16_000


def encoded(container, subtype=None, num_channels=1, rate=RATE, seconds=2.0):
    sink = io.BytesIO()
    wave = tone(int(seconds * rate), num_channels, rate)
    soundfile.write(sink, wave.T, rate, format=container, subtype=subtype)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("container", "subtype"), [("MP3", None), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("FLAC", None)]
)
@pytest.mark.parametrize("second", [(1, RATE), (2, RATE), (1, 48_000)], ids=str)
def test_a_file_that_goes_on_in_another_is_noted_and_its_first_part_kept(
    tmp_path, container, subtype, second
):
    path = tmp_path / "x"
    path.write_bytes(encoded(container, subtype) + encoded(container, subtype, *second))
    audio = read_audio(str(path))
    assert audio.waveform.shape == (1, 2 * RATE)
    (warning,) = audio.warnings
    assert warning.startswith(("truncated: ", "damaged: "))


@pytest.mark.parametrize("tail", [b"TAG" + bytes(125), b"APETAGEX" + bytes(600)])
def test_tags_at_the_end_of_an_mp3_are_no_second_file(tmp_path, tail):
    tag = b"ID3\x04\0\0" + bytes([0, 0, 1, 4]) + bytes(132)
    for name, payload in (("x", encoded("MP3")), ("y", tag + encoded("MP3"))):
        (tmp_path / name).write_bytes(payload + tail)
        audio = read_audio(str(tmp_path / name))
        assert audio.waveform.shape == (1, 2 * RATE)
        assert audio.warnings == ()


@pytest.mark.parametrize(
    ("container", "subtype", "rate"),
    [
        ("WAV", "GSM610", RATE),
        ("AU", "G721_32", RATE),
        ("AU", "G723_24", RATE),
        ("WAV", "NMS_ADPCM_32", 8_000),
        ("MP3", None, 8_000),
        ("MP3", None, RATE),
        ("MP3", None, 44_100),
        ("WAV", "IMA_ADPCM", RATE),
        ("WAV", "MS_ADPCM", RATE),
        ("CAF", "ALAC_16", RATE),
        ("OGG", "VORBIS", RATE),
        ("OGG", "OPUS", RATE),
        ("FLAC", "PCM_24", RATE),
    ],
)
def test_a_span_of_any_codec_is_the_samples_of_the_whole(tmp_path, container, subtype, rate):
    path = tmp_path / "x"
    path.write_bytes(encoded(container, subtype, rate=rate, seconds=6.0))
    whole = read_audio(str(path)).waveform
    for start, end in ((0.5, 1.0), (3.0123, 4.5), (0.0, 0.25), (2.0, 5.9)):
        part = read_audio(str(path), start, end).waveform
        np.testing.assert_array_equal(part, whole[:, round(start * rate) : round(end * rate)])


@pytest.mark.parametrize(
    ("container", "subtype", "rate", "tolerance"),
    [("MP3", None, 8_000, 2**-23), ("MP3", None, 44_100, 2**-23), ("OGG", "OPUS", RATE, 2**-9)],
)
def test_a_span_that_need_not_be_exact_is_nearly_so(tmp_path, container, subtype, rate, tolerance):
    path = tmp_path / "x"
    path.write_bytes(encoded(container, subtype, rate=rate, seconds=6.0))
    whole = read_audio(str(path)).waveform
    for start, end in ((0.5, 1.0), (3.0123, 4.5), (0.0, 0.25), (2.0, 5.9)):
        part = read_audio(str(path), start, end, is_exact=False).waveform
        expected = whole[:, round(start * rate) : round(end * rate)]
        np.testing.assert_allclose(part, expected, rtol=0, atol=tolerance)


def test_a_codec_that_libsndfile_cannot_read_is_unreadable_not_empty(tmp_path):
    (tmp_path / "x").write_bytes(encoded("AIFF", "DWVW_16"))
    with pytest.raises(AudioError, match="unreadable: no sample is decoded: damaged"):
        read_audio(str(tmp_path / "x"))
