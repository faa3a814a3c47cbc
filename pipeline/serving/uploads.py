"""Uploaded recordings: temporary files, and speech to continue."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from model.bundle.limits import RequestError
from pipeline.audio.files import AudioError, read_audio
from pipeline.continuation import spoken_recording
from pipeline.errors import PipelineError
from pipeline.serving.errors import ApiError
from pipeline.serving.schemas import DEFAULT_VOICE, AudioJob, ContinuationBody

Embed = Callable[[str], Sequence[float]]
"""Speaker embedding of the recording at a path; raises `PipelineError` if it holds no voice."""

_MAX_FILE_S = 60.0
"""Maximum duration of a recording to continue, silence included, seconds."""
_FIELDS = {
    "continue": "continuation.audio",
    "continue_transcript": "continuation.transcript",
}
"""Field of the request body by field of `pipeline.continuation`."""


@contextmanager
def uploaded(recording: bytes, field: str) -> Iterator[str]:
    """Write a recording to a temporary file; yields its path.

    Args:
        recording: An audio file in any common format.
        field: Field of the recording in the request body.

    Raises:
        ApiError: With status 400, if the block raises an error about the recording.
    """
    with tempfile.TemporaryDirectory(prefix="audiocalm-upload-") as scratch:
        path = str(Path(scratch) / "recording")
        Path(path).write_bytes(recording)
        try:
            yield path
        except RequestError as error:
            raise ApiError(400, error.message, _FIELDS.get(error.field, error.field)) from error
        except (AudioError, PipelineError) as error:
            said = str(error).replace(f"{path} ", "the recording ").replace(path, "the recording")
            raise ApiError(400, said, field) from error


def continued(job: AudioJob, body: ContinuationBody, embed: Embed | None) -> AudioJob:
    """The job with the recording to continue and, unless it names a voice, the recording's voice.

    Args:
        job: Job to complete.
        body: The recording and its words.
        embed: Computes the speaker embedding; None continues without one.

    Raises:
        ApiError: With status 400, if the recording or its words cannot be used.
    """
    field = _FIELDS["continue"]
    with uploaded(body.audio, field) as path:
        audio = read_audio(path, max_duration_s=_MAX_FILE_S)
        recording = spoken_recording(audio.waveform, audio.sample_rate, body.transcript)
        takes_voice = job.voice == DEFAULT_VOICE and job.voice_embedding is None
        voice = job.voice_embedding
        if takes_voice and embed is not None:
            voice = tuple(float(value) for value in embed(path))
    return replace(job, continues=recording, voice_embedding=voice)
