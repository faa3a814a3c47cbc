from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import pipeline.audio.decoders
import pipeline.audio.spans
from pipeline.audio.ffmpeg import FfmpegDecoder
from pipeline.audio.files import AudioError, open_audio, read_audio
from tests.factories.audio_files import ffmpeg_bytes, tone

RATE = 16_000
SECONDS = 12


@pytest.fixture
def opened(monkeypatch):
    """Counts the decoders that are opened, and the samples that they decode."""
    counts = {"opened": 0, "decoded": 0}

    class Counted(FfmpegDecoder):
        def __init__(self, stream):
            counts["opened"] += 1
            super().__init__(stream)

        def _decoded(self):
            for block in super()._decoded():
                counts["decoded"] += len(block)
                yield block

    monkeypatch.setattr(pipeline.audio.decoders, "FfmpegDecoder", Counted)
    return counts


def write(path, seconds=SECONDS, container="mp4"):
    noise = 0.2 * np.random.default_rng(1).uniform(-1, 1, (1, seconds * RATE))
    path.write_bytes(ffmpeg_bytes(noise + tone(seconds * RATE), RATE, container))
    return str(path)


def spans(count, seed=0):
    starts = np.random.default_rng(seed).integers(0, (SECONDS - 1) * 1_000, count) / 1_000
    return [(float(start), float(start) + 0.7) for start in sorted(starts)]


def check(path, whole, start, end):
    part = read_audio(path, start, end).waveform
    np.testing.assert_array_equal(part, whole[:, round(start * RATE) : round(end * RATE)])


@pytest.mark.parametrize("container", ["mp4", "adts", "matroska"])
def test_spans_in_order_cost_one_pass_and_are_the_samples_of_the_whole(tmp_path, opened, container):
    path = write(tmp_path / "x", container=container)
    whole = read_audio(path).waveform
    opened.update(opened=0, decoded=0)
    for start, end in spans(60):
        check(path, whole, start, end)
    assert opened["opened"] == 1
    assert opened["decoded"] <= whole.shape[1]


def test_spans_in_any_order_cost_one_pass_while_all_samples_are_kept(tmp_path, opened):
    path = write(tmp_path / "x")
    whole = read_audio(path).waveform
    opened.update(opened=0, decoded=0)
    for start, end in reversed(spans(40)):
        check(path, whole, start, end)
    assert opened["opened"] == 1


def test_spans_before_what_is_kept_start_the_file_over(tmp_path, opened, monkeypatch):
    monkeypatch.setattr(pipeline.audio.spans, "MAX_KEPT_BYTES", 1)
    path = write(tmp_path / "x")
    whole = read_audio(path).waveform
    for start, end in [*spans(6), *reversed(spans(6, seed=1))]:
        check(path, whole, start, end)
    assert opened["opened"] > 2


def test_a_reader_that_is_overtaken_goes_on_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline.audio.spans, "MAX_KEPT_BYTES", 1)
    path = write(tmp_path / "x")
    whole = read_audio(path).waveform
    with open_audio(path, 0.5, 11.5) as slow:
        blocks = slow.blocks()
        first = next(blocks)
        check(path, whole, 9.0, 9.5)
        rest = np.concatenate([first, *blocks], axis=1)
    np.testing.assert_array_equal(rest, whole[:, RATE // 2 : 23 * RATE // 2])


def test_threads_share_a_pass(tmp_path):
    path = write(tmp_path / "x")
    whole = read_audio(path).waveform
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda span: check(path, whole, *span), spans(40)))


def test_only_few_files_stay_open(tmp_path, opened):
    paths = [write(tmp_path / str(number), 2) for number in range(5)]
    for path in paths * 2:
        read_audio(path, 0.5, 1.0)
    assert opened["opened"] == 10
    held = [
        os.readlink(f"/proc/self/fd/{fd}")
        for fd in os.listdir("/proc/self/fd")
        if os.path.islink(f"/proc/self/fd/{fd}")
    ]
    assert sum(name in paths for name in held) <= pipeline.audio.spans.MAX_FILES


def test_a_file_that_was_replaced_is_read_anew(tmp_path):
    path = write(tmp_path / "x")
    before = read_audio(path, 1.0, 2.0).waveform
    (tmp_path / "x").write_bytes(ffmpeg_bytes(0.5 * tone(SECONDS * RATE), RATE))
    after = read_audio(path, 1.0, 2.0).waveform
    assert not np.array_equal(before, after)
    np.testing.assert_array_equal(after, read_audio(path).waveform[:, RATE : 2 * RATE])


def test_warnings_are_those_of_the_file_up_to_the_end_of_the_span(tmp_path):
    mono = ffmpeg_bytes(tone(6 * RATE), RATE, "adts")
    stereo = ffmpeg_bytes(tone(6 * RATE, 2), RATE, "adts")
    path = tmp_path / "x.aac"
    path.write_bytes(mono + stereo)
    late = [read_audio(str(path), 9.0, 10.0).warnings for _ in range(2)]
    early = read_audio(str(path), 0.5, 1.0).warnings
    assert early == ()
    assert late[0] == late[1]
    assert [warning.partition(":")[0] for warning in late[0]] == ["format_change"]


def test_a_span_beyond_the_end_is_refused_the_same_way_each_time(tmp_path):
    path = write(tmp_path / "x", 2)
    for _ in range(2):
        with pytest.raises(AudioError, match=r"span_outside_audio: the span ends at 5\.000 s"):
            read_audio(path, 1.0, 5.0)
        with pytest.raises(AudioError, match="span_outside_audio"):
            read_audio(path, 7.0, 8.0)
        assert read_audio(path, 1.0, 1.5).waveform.shape == (1, RATE // 2)


def test_a_file_that_fails_half_way_fails_for_every_span_behind(tmp_path, monkeypatch):
    class Failing(FfmpegDecoder):
        def _decoded(self):
            for number, block in enumerate(super()._decoded()):
                if number > 80:
                    raise RuntimeError("no more")
                yield block

    monkeypatch.setattr(pipeline.audio.decoders, "FfmpegDecoder", Failing)
    path = write(tmp_path / "x")
    assert read_audio(path, 0.5, 1.0).waveform.shape == (1, RATE // 2)
    for start in (8.0, 9.0):
        with pytest.raises(AudioError, match="the decoder failed: RuntimeError: no more"):
            read_audio(path, start, start + 0.5)
    assert read_audio(path, 1.0, 1.5).waveform.shape == (1, RATE // 2)
