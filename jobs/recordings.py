"""Voices from recordings, for `generate --voice` and the voice folder of `serve`."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from pipeline.audio_io import AudioError, read_audio
from pipeline.data.corpora.listing import is_audio_name
from pipeline.data.speaker_models import load_speaker_encoder
from pipeline.errors import PipelineError

logger = logging.getLogger(__name__)

_MAX_DURATION_S = 120.0


class VoiceError(PipelineError):
    """A recording holds no voice, or a folder no recording."""


def recorded_voice(path: str | Path, encoder: str | None = None) -> list[float]:
    """Speaker embedding of one recording.

    Args:
        path: Audio file.
        encoder: Folder of the speaker encoder that the training data was embedded with; None is
            the built-in one.

    Raises:
        ValueError: If the folder holds no speaker encoder.
        VoiceError: If the file is not audio, is longer than two minutes, or nothing in it is loud
            enough to tell a voice.
    """
    try:
        audio = read_audio(str(path), max_duration_s=_MAX_DURATION_S)
    except AudioError as error:
        raise VoiceError(f"{path} cannot be heard: {error}") from error
    embedding = load_speaker_encoder(encoder).embed(audio.waveform, audio.sample_rate)
    if not np.any(embedding):
        raise VoiceError(f"{path} holds no voice that can be heard; record one closer")
    return [float(value) for value in embedding]


def recorded_voices(folder: str | None, encoder: str | None = None) -> dict[str, list[float]]:
    """Speaker embedding of every recording in a folder, by file name without ending.

    Files whose names do not end as audio, such as transcripts, are left out and named in the log.

    Raises:
        VoiceError: If the folder has no recording, one holds no voice, or two share a name.
    """
    if folder is None:
        return {}
    files = sorted(path for path in Path(folder).glob("[!.]*") if path.is_file())
    paths = [path for path in files if is_audio_name(path.name)]
    if len(paths) < len(files):
        others = ", ".join(path.name for path in files if path not in paths)
        logger.info("%s holds files that are no recordings, left out: %s", folder, others)
    if not paths:
        raise VoiceError(f"{folder} holds no recordings; put one audio file a voice there")
    names = [path.stem for path in paths]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise VoiceError(f"{folder} holds several recordings of {', '.join(twice)}; keep one each")
    return {path.stem: recorded_voice(path, encoder) for path in paths}
