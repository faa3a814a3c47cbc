"""Voices from recordings: one per file, and clear words where there is none."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from jobs.recordings import VoiceError, bundle_voice, recorded_voice, recorded_voices
from pipeline.acoustics.speaker import SPEAKER_DIM
from tests.factories.bundle import random_bundle
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


@pytest.mark.parametrize("name", ["ada.txt", "notes.csv", "README", "ada.wav.json"])
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


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("short", r"is 0\.50 s long and a voice takes at least 1 s"),
        ("noise", r"holds 0\.\d\d s with the pitch of a voice and at least 0\.2 s"),
    ],
)
def test_a_recording_without_a_voice_is_refused(tmp_path: Path, name: str, message: str) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 32_000)
    takes = {
        "short": noise[:8000],
        "noise": noise,
    }
    path = tmp_path / "take.wav"
    soundfile.write(path, takes[name], 16_000)
    with pytest.raises(VoiceError, match=message):
        recorded_voice(path)


def test_a_voice_by_another_encoder_than_the_bundles_is_refused(tmp_path: Path) -> None:
    bundle = random_bundle(tmp_path)
    shards = {"speaker": {"encoder": "wavlm-0123", "speaker_dim": 5}}
    bundle = dataclasses.replace(bundle, card={"shards": shards})
    take = str(record(tmp_path / "a.wav", 110.0))
    with pytest.raises(VoiceError, match=r"by the encoder 'wavlm-0123' .* by 'statistics-1'"):
        bundle_voice(bundle, take)
    assert torch.equal(bundle_voice(bundle, "ada"), bundle.voices["ada"].embedding)
    matching = dataclasses.replace(bundle, card={"shards": {"speaker": "unknown"}})
    assert len(bundle_voice(matching, take)) == SPEAKER_DIM
