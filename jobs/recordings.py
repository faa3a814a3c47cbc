"""Voices from recordings, for `generate --voice` and `--continue` and the voices of `serve`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.acoustics.pitch import pitch_track
from pipeline.acoustics.speaker import VOICE_PITCH
from pipeline.acoustics.speaker_models import load_speaker_encoder
from pipeline.audio.files import Audio, AudioError, read_audio, resample
from pipeline.data.corpora.file_names import is_audio_name
from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from torch import Tensor

    from model.bundle.bundle import Bundle
    from model.bundle.request import SpeechPrompt

logger = logging.getLogger(__name__)

_MAX_DURATION_S = 120.0
_MIN_DURATION_S = 1.0
_MIN_VOICED_S = 0.2
_PITCH_RATE = 8000
_PITCH_PERIOD_S = 0.02


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
        VoiceError: If the file is not audio, is shorter than a second or longer than two minutes,
            or nothing in it is loud enough or has the pitch of a voice.
    """
    audio = _audio(path)
    duration_s = audio.waveform.shape[1] / audio.sample_rate
    if duration_s < _MIN_DURATION_S:
        raise VoiceError(
            f"{path} is {duration_s:.2f} s long and a voice takes at least {_MIN_DURATION_S:g} s "
            "to tell; record some seconds of speech"
        )
    embedding = load_speaker_encoder(encoder).embed(audio.waveform, audio.sample_rate)
    if not np.any(embedding):
        raise VoiceError(f"{path} holds no voice that can be heard; record one closer")
    mono = resample(audio.waveform.mean(axis=0, keepdims=True), audio.sample_rate, _PITCH_RATE)[0]
    pitch = pitch_track(mono, _PITCH_RATE, VOICE_PITCH)
    if (voiced_s := _PITCH_PERIOD_S * np.count_nonzero(pitch)) < _MIN_VOICED_S:
        raise VoiceError(
            f"{path} holds {voiced_s:.2f} s with the pitch of a voice and at least "
            f"{_MIN_VOICED_S:g} s are needed; record speech without noise or music"
        )
    return [float(value) for value in embedding]


def recorded_prompt(path: str | Path, transcript: str, bundle: Bundle) -> SpeechPrompt:
    """A recording that speech is to continue.

    Args:
        path: Audio file.
        transcript: What is said in it, verbatim.
        bundle: Bundle whose codec encodes the recording.

    Raises:
        VoiceError: If the file is not audio.
        RequestError: If `spoken_recording` refuses the recording or its words.
    """
    from pipeline.continuation import speech_prompt, spoken_recording

    audio = _audio(path)
    recording = spoken_recording(audio.waveform, audio.sample_rate, transcript)
    return speech_prompt(recording, bundle)


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


def _audio(path: str | Path) -> Audio:
    try:
        return read_audio(str(path), max_duration_s=_MAX_DURATION_S)
    except AudioError as error:
        raise VoiceError(f"{path} cannot be heard: {error}") from error


def bundle_voice(bundle: Bundle, voice: str, encoder: str | None = None) -> Tensor:
    """Speaker embedding of a named voice of a bundle, or of a recording.

    Args:
        bundle: Bundle with named voices.
        voice: A name, or the path of a recording.
        encoder: Folder of the speaker encoder, as in `recorded_voice`.

    Raises:
        RequestError: If it is neither a voice of the bundle nor a file.
        VoiceError: If the recording cannot be used, or the bundle was trained on embeddings of
            another encoder.
    """
    from model.bundle.card import speaker_encoder_of
    from pipeline.serving.offline import voice_of

    def embed(path: str) -> list[float]:
        """Embedding of a recording, if its encoder is that of the bundle."""
        wanted, found = speaker_encoder_of(bundle.card), load_speaker_encoder(encoder).name
        if wanted not in (None, found):
            raise VoiceError(
                f"the bundle knows voices by the encoder {wanted!r} and {path} would be read by "
                f"{found!r}; give the folder of that encoder by --speaker-encoder"
            )
        return recorded_voice(path, encoder)

    return voice_of(bundle, voice, embed)
