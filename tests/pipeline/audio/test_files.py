from __future__ import annotations

import io
import pickle
import struct
import tarfile
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
import soundfile

from pipeline.audio.files import (
    AudioError,
    AudioFault,
    file_sha256,
    open_audio,
    probe,
    read_audio,
    resample,
    to_channels,
)
from pipeline.data.rejects import Reason
from pipeline.storage import sha256

RATE = 16_000


def noise(num_samples=8_000, num_channels=1, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(-0.5, 0.5, (num_samples, num_channels)).astype(np.float32)


def encoded(samples, container="WAV", subtype="PCM_16", rate=RATE):
    sink = io.BytesIO()
    soundfile.write(sink, samples, rate, format=container, subtype=subtype)
    return sink.getvalue()


def fault_of(path, **span):
    with pytest.raises(AudioError) as caught:
        read_audio(str(path), **span)
    return caught.value.reason


@pytest.mark.parametrize(
    ("container", "subtype", "tolerance"),
    [
        ("WAV", "PCM_U8", 1 / 120),
        ("WAV", "PCM_16", 1 / 30_000),
        ("WAV", "PCM_24", 1e-6),
        ("WAV", "PCM_32", 1e-6),
        ("WAV", "FLOAT", 0.0),
        ("WAV", "DOUBLE", 0.0),
        ("WAV", "ULAW", 0.03),
        ("WAV", "ALAW", 0.03),
        ("WAVEX", "PCM_24", 1e-6),
        ("AIFF", "PCM_16", 1 / 30_000),
        ("FLAC", "PCM_24", 1e-6),
        ("W64", "PCM_16", 1 / 30_000),
        ("CAF", "PCM_16", 1 / 30_000),
    ],
)
def test_every_sample_format_becomes_float_in_range(tmp_path, container, subtype, tolerance):
    samples = noise(num_channels=2)
    (tmp_path / "a").write_bytes(encoded(samples, container, subtype))
    audio = read_audio(str(tmp_path / "a"))
    assert audio.waveform.dtype == np.float32
    assert audio.waveform.shape == (2, 8_000)
    np.testing.assert_allclose(audio.waveform, samples.T, atol=tolerance)
    assert (audio.sample_rate, audio.warnings) == (RATE, ())


@pytest.mark.parametrize(
    ("container", "subtype"), [("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", None)]
)
def test_lossy_containers_are_read_under_any_name(tmp_path, container, subtype):
    path = tmp_path / "named.raw"
    path.write_bytes(encoded(noise(16_000) * 0.2, container, subtype))
    audio = read_audio(str(path))
    assert abs(audio.waveform.shape[1] - 16_000) < 3_000
    assert audio.warnings == ()


@pytest.mark.parametrize("container", ["mp4", "matroska", "adts"])
def test_formats_that_libsndfile_does_not_read_go_through_ffmpeg(tmp_path, container):
    import av

    path = tmp_path / "a.wav"
    with av.open(str(path), "w", format=container) as sink:
        track = sink.add_stream("aac", rate=RATE, layout="mono")
        samples = (0.3 * np.sin(np.arange(RATE) * 0.2)).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
        for packet in [*track.encode(frame), *track.encode(None)]:
            sink.mux(packet)
    audio = read_audio(str(path))
    assert audio.sample_rate == RATE
    assert abs(audio.waveform.shape[1] - RATE) <= 2_048
    middle = audio.waveform[0, 4_000:12_000]
    assert 0.25 < np.abs(middle).max() < 0.35
    part = read_audio(str(path), 0.25, 0.5).waveform
    np.testing.assert_array_equal(part, audio.waveform[:, 4_000:8_000])


def header(rate=RATE, channels=1, tag=1, size=16_000, bits=16):
    frame = channels * bits // 8
    fields = struct.pack("<HHIIHH", tag, channels, rate, rate * frame % 2**32, frame, bits)
    body = b"fmt " + struct.pack("<I", 16) + fields + b"data" + struct.pack("<I", size)
    return b"RIFF" + struct.pack("<I", min(36 + size, 2**32 - 1)) + b"WAVE" + body


@pytest.mark.parametrize(
    ("payload", "fault"),
    [
        (b"", "empty_audio"),
        (header(size=0), "empty_audio"),
        (header()[:30], "unreadable"),
        (header(rate=0) + b"\1\2" * 8_000, "unreadable"),
        (header(rate=4_000_000_000) + b"\1\2" * 8_000, "unreadable"),
        (header(rate=800_000) + b"\1\2" * 8_000, "unreadable"),
        (header(channels=0) + b"\1\2" * 8_000, "unreadable"),
        (header(channels=65, size=65 * 200) + b"\1\2" * 6_500, "unreadable"),
        (header(tag=0x1234) + b"\1\2" * 8_000, "unreadable"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "unreadable"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "unreadable"),
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "unreadable"),
        (np.random.default_rng(0).bytes(16_000), "unreadable"),
        (b"\0\0\0\x20ftypM4A " + b"\0" * 200, "unreadable"),
        (b"\x1aE\xdf\xa3" + b"\0" * 200, "unreadable"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_files_without_audio_are_refused(tmp_path, payload, fault):
    path = tmp_path / "a.wav"
    path.write_bytes(payload)
    assert fault_of(path) == fault


@pytest.mark.parametrize(
    "payload",
    [
        header(size=0xFFFFFFFF) + b"\1\2" * 8_000,
        header() + b"\1\2" * 8_000 + b"JUNKJUNKJUNK!",
        header(size=16_001) + b"\1\2" * 8_000 + b"\3",
    ],
    ids=["streamed lengths", "junk at the end", "odd length"],
)
def test_harmless_headers_give_all_whole_samples(tmp_path, payload):
    (tmp_path / "a.wav").write_bytes(payload)
    audio = read_audio(str(tmp_path / "a.wav"))
    assert audio.waveform.shape == (1, 8_000)
    assert audio.warnings == ()


@pytest.mark.parametrize(
    ("container", "subtype", "share"),
    [("WAV", "PCM_16", 0.5), ("FLAC", "PCM_16", 0.6), ("OGG", "VORBIS", 0.6)],
)
def test_the_readable_part_of_a_cut_file_is_kept_with_a_warning(
    tmp_path, container, subtype, share
):
    payload = encoded(noise(48_000), container, subtype)
    (tmp_path / "a").write_bytes(payload[: int(share * len(payload))])
    audio = read_audio(str(tmp_path / "a"))
    assert 0 < audio.waveform.shape[1] < 48_000
    assert any(warning.startswith("truncated: ") for warning in audio.warnings)


def test_damage_in_the_middle_ends_the_audio_with_a_warning(tmp_path):
    payload = bytearray(encoded(noise(48_000), "FLAC"))
    payload[len(payload) // 2 : len(payload) // 2 + 64] = bytes(64)
    (tmp_path / "a").write_bytes(payload)
    audio = read_audio(str(tmp_path / "a"))
    assert 10_000 < audio.waveform.shape[1] < 48_000
    assert audio.warnings[0].startswith("damaged: ")


def test_what_comes_before_damage_is_kept_to_a_thousand_samples(tmp_path):
    payload = bytearray(encoded(noise(200_000), "FLAC"))
    (tmp_path / "whole").write_bytes(payload)
    payload[len(payload) // 2 : len(payload) // 2 + 64] = bytes(64)
    (tmp_path / "a").write_bytes(payload)
    kept = read_audio(str(tmp_path / "a")).waveform
    assert 90_000 < kept.shape[1] < 110_000
    assert np.array_equal(kept, read_audio(str(tmp_path / "whole")).waveform[:, : kept.shape[1]])
    span = read_audio(str(tmp_path / "a"), 70_000 / RATE, 90_000 / RATE).waveform
    assert np.array_equal(span, kept[:, 70_000:90_000])


def test_a_span_is_the_same_samples_as_the_whole_file_has(tmp_path):
    samples = noise(RATE * 3)
    path = tmp_path / "a.flac"
    path.write_bytes(encoded(samples, "FLAC"))
    whole = read_audio(str(path)).waveform
    np.testing.assert_array_equal(read_audio(str(path), 1.0, 2.0).waveform, whole[:, 16_000:32_000])
    np.testing.assert_array_equal(read_audio(str(path), 2.5).waveform, whole[:, 40_000:])
    np.testing.assert_array_equal(read_audio(str(path), None, 0.5).waveform, whole[:, :8_000])
    np.testing.assert_array_equal(read_audio(str(path), 2.5, 3.05).waveform, whole[:, 40_000:])


@pytest.mark.parametrize(
    "span", [(3.0, 4.0), (0.0, 9.0), (2.0, 1.0), (-1.0, 1.0), (float("nan"), 1.0)]
)
def test_a_span_outside_the_file_is_refused(tmp_path, span):
    path = tmp_path / "a.wav"
    path.write_bytes(encoded(noise(RATE * 3)))
    assert fault_of(path, start_s=span[0], end_s=span[1]) == "span_outside_audio"


def test_floats_out_of_range_are_scaled_or_refused_never_wrapped(tmp_path):
    samples = noise()
    samples[100] = 1.6
    (tmp_path / "a.wav").write_bytes(encoded(samples, "WAV", "FLOAT"))
    audio = read_audio(str(tmp_path / "a.wav"))
    assert np.abs(audio.waveform).max() == 1.0
    np.testing.assert_allclose(audio.waveform * 1.6, samples.T, rtol=1e-6)
    assert audio.warnings == ("scaled: peak 1.600 brought back to 1",)
    samples[100] = 10_698.0
    (tmp_path / "a.wav").write_bytes(encoded(samples, "WAV", "FLOAT"))
    assert fault_of(tmp_path / "a.wav") == "out_of_range"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_finite_are_refused(tmp_path, value):
    samples = noise()
    samples[7_000] = value
    (tmp_path / "a.wav").write_bytes(encoded(samples, "WAV", "FLOAT"))
    assert fault_of(tmp_path / "a.wav") == "non_finite"


def test_a_long_file_is_decoded_in_bounded_memory(tmp_path):
    path = tmp_path / "a.flac"
    path.write_bytes(encoded(np.zeros((8_000 * 600, 1), np.float32), "FLAC", rate=8_000))
    tracemalloc.start()
    with open_audio(str(path)) as stream:
        count = sum(block.shape[1] for block in stream.blocks())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 8_000 * 600
    assert peak < 4e6  # the waveform would be 19 MB
    with pytest.raises(AudioError, match="longer than the limit of 60 s"):
        read_audio(str(path), max_duration_s=60)


def test_a_member_of_a_tar_and_a_uri_are_read_like_a_file(tmp_path):
    payload = encoded(noise())
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        member = tarfile.TarInfo("deep/x.wav")
        member.size = len(payload)
        archive.addfile(member, io.BytesIO(payload))
    (tmp_path / "plain.tar#x.wav").write_bytes(payload)
    expected = read_audio(str(tmp_path / "plain.tar#x.wav")).waveform
    (tmp_path / "a b").mkdir()
    (tmp_path / "a b" / "x y%.wav").write_bytes(payload)
    for uri in (f"{tmp_path}/a.tar#deep/x.wav", f"file://{tmp_path}/a%20b/x%20y%25.wav"):
        np.testing.assert_array_equal(read_audio(uri).waveform, expected)
    assert fault_of(f"{tmp_path}/a.tar#none.wav") == "missing_audio"
    assert fault_of(tmp_path / "none.wav") == "missing_audio"
    assert fault_of(tmp_path) == "unreadable"


def test_probe_and_digest(tmp_path):
    payload = encoded(noise(num_channels=2), "FLAC")
    (tmp_path / "a").write_bytes(payload)
    info = probe(str(tmp_path / "a"))
    assert (info.sample_rate, info.num_channels, info.num_samples) == (RATE, 2, 8_000)
    assert info.container == "FLAC"
    assert file_sha256(str(tmp_path / "a")) == sha256(payload)


@pytest.mark.parametrize(
    ("source", "target"), [(44_100, 16_000), (8_000, 16_000), (44_101, 48_000), (16_000, 16_000)]
)
def test_resampling_keeps_pitch_and_gives_the_promised_length(source, target):
    time = np.arange(source) / source
    tone = np.stack([np.sin(2 * np.pi * 440 * time), np.cos(2 * np.pi * 440 * time)])
    changed = resample(tone.astype(np.float32), source, target)
    assert changed.shape == (2, target)
    assert changed.dtype == np.float32
    spectrum = np.abs(np.fft.rfft(changed[0]))
    assert spectrum.argmax() == 440


def test_mixing_down_takes_the_mean_unless_it_cancels():
    wave = noise(100).T
    stereo = np.concatenate([wave, wave * 0.5])
    np.testing.assert_allclose(to_channels(stereo, 1), wave * 0.75, rtol=1e-5)
    np.testing.assert_array_equal(to_channels(np.concatenate([wave, -wave]), 1), wave)
    np.testing.assert_array_equal(to_channels(wave, 2), np.concatenate([wave, wave]))
    assert to_channels(np.repeat(wave, 8, axis=0), 2).shape == (2, 100)
    assert to_channels(stereo, 2) is stereo


def test_faults_are_reject_reasons_and_survive_a_process_border():
    assert {Reason(str(fault)) for fault in AudioFault}
    error = pickle.loads(pickle.dumps(AudioError(AudioFault.TOO_LONG, "why")))
    assert (error.reason, error.detail) == (AudioFault.TOO_LONG, "why")
