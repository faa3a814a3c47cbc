"""Work is cut into tasks that cover every clip once; audio is written as it is or not at all."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from pipeline.data.starter.music.piece import plan_pieces
from pipeline.data.starter.settings import StarterSettings
from pipeline.data.starter.sounds.plan import plan_scenes
from pipeline.data.starter.tasks import encode_audio, perform, plan_tasks, seconds_of


def test_tasks_cover_every_clip_once_and_espeak_is_one_task() -> None:
    settings = StarterSettings(minutes=30)
    tasks = plan_tasks(settings)
    assert [task.modality for task in tasks].count("speech") == 1
    assert [scene for task in tasks for scene in task.scenes] == plan_scenes(settings)
    assert [piece for task in tasks for piece in task.pieces] == plan_pieces(settings)


def test_without_speech_there_is_no_speech_task() -> None:
    settings = StarterSettings(minutes=1, speech_share=0, sound_share=0.5, music_share=0.5)
    assert {task.modality for task in plan_tasks(settings)} == {"sound", "music"}


def test_a_task_says_what_it_wrote(tmp_path: Path) -> None:
    settings = StarterSettings(minutes=0.5)
    (tmp_path / "sound" / "audio").mkdir(parents=True)
    task = next(task for task in plan_tasks(settings) if task.modality == "sound")
    done = perform(task, settings, tmp_path)
    assert done.clips == len(done.rows) == len(list((tmp_path / "sound/audio").iterdir()))
    assert seconds_of([done], "sound") == pytest.approx(9, abs=0.01)
    assert seconds_of([done], "music") == 0


@pytest.mark.parametrize("container", ["WAV", "FLAC"])
def test_audio_comes_back_within_half_a_step(container: str) -> None:
    wave = np.random.default_rng(0).uniform(-1, 1, (2, 500))
    payload = encode_audio(wave, 44_100, container)
    back, rate = sf.read(io.BytesIO(payload), dtype="int16")
    assert rate == 44_100
    assert np.abs(back.T / 32_767 - wave).max() < 0.5001 / 32_767
    assert encode_audio(wave, 44_100, container) == payload


@pytest.mark.parametrize("value", [1.01, float("nan"), float("inf")])
def test_samples_beyond_full_scale_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="full scale"):
        encode_audio(np.array([[0.0, value]]), 44_100, "WAV")
