"""Voices from recordings: one per file, and clear words where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from jobs.recordings import VoiceError, recorded_voice, recorded_voices
from pipeline.acoustics.speaker import SPEAKER_DIM
from tests.factories.speakers import save_x_vector


def record(path: Path, pitch_hz: float, level: float = 0.2) -> Path:
    time_s = np.arange(16_000) / 16_000
    tone = sum(np.sin(2 * np.pi * pitch_hz * k * time_s) / k for k in range(1, 20))
    soundfile.write(path, level * tone, 16_000)
    return path


def test_a_recording_gives_an_embedding_of_its_voice(tmp_path: Path) -> None:
    low, high = (record(tmp_path / f"{hz}.wav", hz) for hz in (110.0, 220.0))
    one, two = np.array(recorded_voice(low)), np.array(recorded_voice(high))
    assert one.shape == (SPEAKER_DIM,)
    assert np.array_equal(one, np.array(recorded_voice(low)))
    assert not np.allclose(one, two, atol=1e-2)


def test_the_encoder_of_the_training_data_is_taken_from_its_folder(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    save_x_vector(tmp_path / "encoder", "WavLM")
    voice = recorded_voice(record(tmp_path / "a.wav", 110.0), str(tmp_path / "encoder"))
    assert len(voice) == 24


def test_a_folder_gives_voices_by_file_name(tmp_path: Path) -> None:
    record(tmp_path / "ada.wav", 200.0)
    record(tmp_path / "bob.flac", 110.0)
    (tmp_path / ".hidden").write_text("x")
    assert list(recorded_voices(str(tmp_path))) == ["ada", "bob"]
    assert recorded_voices(None) == {}


@pytest.mark.parametrize(XX)
def test_other_files_beside_recordings_are_left_out_and_named(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    record(tmp_path / "ada.wav", 200.0)
    (tmp_path / name).write_text("what ada says")
    with caplog.at_level("INFO"):
        assert list(recorded_voices(str(tmp_path))) == ["ada"]
    assert name in caplog.text


def test_a_folder_of_other_files_holds_no_recordings(tmp_path: Path) -> None:
    (tmp_path / "ada.txt").write_text("what ada says")
    with pytest.raises(VoiceError, match="holds no recordings"):
        recorded_voices(str(tmp_path))


def test_a_text_that_is_called_a_recording_is_named(tmp_path: Path) -> None:
    record(tmp_path / "ada.wav", 200.0)
    (tmp_path / "bob.wav").write_text("what bob says")
    with pytest.raises(VoiceError, match=r"bob\.wav cannot be heard"):
        recorded_voices(str(tmp_path))


def test_silence_is_no_voice(tmp_path: Path) -> None:
    path = record(tmp_path / "silent.wav", 100.0, level=0.0)
    with pytest.raises(VoiceError, match="no voice that can be heard"):
        recorded_voice(path)


def test_an_empty_folder_and_doubled_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(VoiceError, match="holds no recordings"):
        recorded_voices(str(tmp_path))
    record(tmp_path / "ada.wav", 200.0)
    record(tmp_path / "ada.flac", 200.0)
    with pytest.raises(VoiceError, match="several recordings of ada"):
        recorded_voices(str(tmp_path))
