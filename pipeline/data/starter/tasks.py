"""Pieces of the work on a starter corpus, each for one process: audio files and their rows."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile as sf

from pipeline.data.starter import dsp
from pipeline.data.starter.music.piece import PiecePlan, plan_pieces, render_piece
from pipeline.data.starter.settings import StarterSettings
from pipeline.data.starter.sounds.plan import ScenePlan, plan_scenes, render_scene
from pipeline.data.starter.speech import SpeechPart, plan_speech, utterances

LICENCE = "CC0-1.0"
"""SPDX id of everything in the corpus but open sentences."""
FOLDS = 5
"""Folds of the sound class table."""
_SCENES_PER_TASK, _PIECES_PER_TASK = 16, 6


@dataclass(frozen=True)
class Task:
    """Some clips of one modality."""

    modality: str
    speech: SpeechPart | None = None
    scenes: tuple[ScenePlan, ...] = ()
    pieces: tuple[PiecePlan, ...] = ()


@dataclass
class Done:
    """What a task wrote.

    Attributes:
        modality: The modality of all its clips.
        rows: Manifest rows, where the layout has a manifest; of speech with the kind before them.
        seconds: Duration in all.
        clips: Number of clips.
    """

    modality: str
    rows: list[tuple[str, ...]] = field(default_factory=list)
    seconds: float = 0.0
    clips: int = 0


def plan_tasks(settings: StarterSettings) -> list[Task]:
    """All tasks, the longest first; results belong in this order.

    Raises:
        SettingsError: If the file of sentences cannot be read or holds none.
        SpeechEngineError: If a requested speech engine is not installed.
    """
    pieces, scenes = plan_pieces(settings), plan_scenes(settings)
    tasks = [Task("speech", speech=part) for part in plan_speech(settings)]
    for start in range(0, len(pieces), _PIECES_PER_TASK):
        tasks.append(Task("music", pieces=tuple(pieces[start : start + _PIECES_PER_TASK])))
    for start in range(0, len(scenes), _SCENES_PER_TASK):
        tasks.append(Task("sound", scenes=tuple(scenes[start : start + _SCENES_PER_TASK])))
    return tasks


def perform(task: Task, settings: StarterSettings, folder: Path) -> Done:
    """Write the clips of a task below `folder/<modality>`; that directory must exist."""
    done = Done(task.modality)
    if task.speech is not None:
        _speech(settings, task.speech, folder / "speech", done)
    for scene in task.scenes:
        _sound(settings, scene, folder / "sound", done)
    for piece in task.pieces:
        _music(settings, piece, folder / "music", done)
    return done


def _speech(settings: StarterSettings, part: SpeechPart, folder: Path, done: Done) -> None:
    for utterance in utterances(settings, part):
        name = f"{utterance.name}.wav"
        rate = utterance.sample_rate
        home = folder / utterance.kind
        home.mkdir(exist_ok=True)
        (home / name).write_bytes(encode_audio(utterance.wave[None], rate, "WAV"))
        speaker = utterance.speaker
        row = (
            name,
            utterance.transcript,
            speaker.language,
            speaker.name,
            speaker.sex,
            utterance.style,
            json.dumps(utterance.captions, ensure_ascii=False),
            settings.speech.sentences_licence if utterance.kind == "open" else LICENCE,
        )
        done.rows.append((utterance.kind, *row))
        _count(done, len(utterance.wave), rate)


def _sound(settings: StarterSettings, plan: ScenePlan, folder: Path, done: Done) -> None:
    scene = render_scene(settings, plan)
    fold = plan.index % FOLDS + 1
    category = "|".join(scene.classes)
    name = f"{fold}-{plan.index:05d}-{category.replace('|', '-')}.flac"
    (folder / "audio" / name).write_bytes(encode_audio(scene.wave, dsp.SAMPLE_RATE, "FLAC"))
    captions = json.dumps((scene.caption, scene.name, *scene.wordings))
    done.rows.append((name, category, captions, str(fold)))
    _count(done, scene.wave.shape[1], dsp.SAMPLE_RATE)


def _music(settings: StarterSettings, plan: PiecePlan, folder: Path, done: Done) -> None:
    piece = render_piece(settings, plan)
    name = f"{plan.style.replace(' ', '-')}_{plan.index:05d}"
    (folder / f"{name}.flac").write_bytes(encode_audio(piece.wave, dsp.SAMPLE_RATE, "FLAC"))
    labels = json.dumps(piece.labels, indent=1, ensure_ascii=False)
    (folder / f"{name}.json").write_bytes(f"{labels}\n".encode())
    _count(done, piece.wave.shape[1], dsp.SAMPLE_RATE)


def _count(done: Done, num_samples: int, sample_rate: int) -> None:
    done.seconds += num_samples / sample_rate
    done.clips += 1


def encode_audio(wave: dsp.Wave, sample_rate: int, container: str) -> bytes:
    """A wave of `channels samples` as a 16-bit file in memory.

    Raises:
        ValueError: If a sample is not finite or beyond full scale.
    """
    peak = np.abs(wave).max(initial=0.0)
    if not peak <= 1:  # also catches NaN
        raise ValueError(f"peak of {peak:g} is not within full scale, 1.0")
    pcm = np.round(wave.T * 32767).astype(np.int16)
    sink = io.BytesIO()
    sf.write(sink, pcm, sample_rate, format=container, subtype="PCM_16")
    return sink.getvalue()


def seconds_of(done: Sequence[Done], modality: str) -> float:
    """Seconds written of one modality."""
    return sum(item.seconds for item in done if item.modality == modality)
