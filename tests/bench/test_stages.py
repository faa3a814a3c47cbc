from __future__ import annotations

from pipeline.audio.files import read_audio
from tests.bench.stages import write_short_clips


def test_short_clips_last_one_to_three_seconds_and_all_differ(tmp_path):
    folder = write_short_clips(tmp_path / "sound", 12)
    waves = [read_audio(str(path)).waveform for path in sorted(folder.rglob("*.wav"))]
    assert len({wave.tobytes() for wave in waves}) == 12
    assert all(16_000 <= wave.shape[1] <= 48_000 for wave in waves)
