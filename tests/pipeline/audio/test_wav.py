"""WAV files for listening."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from pipeline.audio.wav import write_wav


def test_a_waveform_is_written_by_channels_clipped_and_without_nan(tmp_path: Path) -> None:
    waveform = np.array([[0.5, 2.0, np.nan], [-0.5, -2.0, 0.0]], np.float32)
    write_wav(tmp_path / "a.wav", waveform, 8000)
    found, rate = soundfile.read(tmp_path / "a.wav", dtype="float32", always_2d=True)
    assert rate == 8000
    expected = [[0.5, -0.5], [1.0, -1.0], [0.0, 0.0]]
    np.testing.assert_allclose(found, expected, atol=2**-15)
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"], "nothing is left beside it"
