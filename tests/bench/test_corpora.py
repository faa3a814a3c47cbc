from __future__ import annotations

import pytest

from pipeline.audio.files import probe, read_audio
from tests.bench.corpora import LONG_RATE, write_long_recordings, write_short_clips


def test_short_clips_last_one_to_three_seconds_and_all_differ(tmp_path):
    folder = write_short_clips(tmp_path / "sound", 12)
    waves = [read_audio(str(path)).waveform for path in sorted(folder.rglob("*.wav"))]
    assert len({wave.tobytes() for wave in waves}) == 12
    assert all(16_000 <= wave.shape[1] <= 48_000 for wave in waves)


def test_long_recordings_are_as_long_as_asked_in_two_formats(tmp_path):
    clips = write_short_clips(tmp_path / "clips", 3)
    folder = write_long_recordings(tmp_path / "sound", [str(clips)], 2, hours=10 / 3600)
    first, second = (probe(str(folder / name)) for name in ("000.flac", "001.mp3"))
    assert (first.sample_rate, first.num_samples) == (LONG_RATE, 10 * LONG_RATE)
    assert second.num_samples == pytest.approx(10 * LONG_RATE, abs=LONG_RATE // 10)
    with pytest.raises(ValueError, match=r"no \.wav or \.flac file below .*empty"):
        write_long_recordings(tmp_path / "none", [str(tmp_path / "empty")], 1, hours=1.0)
