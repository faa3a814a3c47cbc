"""Bodies of requests and errors: ours, and the speech endpoint that OpenAI's clients speak."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.serving.formats import STREAMED_FORMATS, Format

DEFAULT_VOICE = "default"
"""The voice that the description alone shapes."""
_SAMPLING = ("num_flow_steps", "guidance_scale", "temperature")
"""Sampling that a request may change."""


@dataclass(frozen=True, kw_only=True)
class AudioJob:
    """One piece of audio to make, in plain values that travel between processes."""

    description: str
    transcript: str | None = None
    language: str | None = None
    modality: str | None = None
    duration_s: float | None = None
    is_singing: bool = False
    voice: str = DEFAULT_VOICE
    voice_embedding: tuple[float, ...] | None = None
    seed: int = 0
    sampling: dict[str, Any] = field(default_factory=dict)


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class GenerateBody(_Body):
    """POST /v1/audio/generate."""

    description: str
    """What it sounds like: the scene, the style, the voice."""
    transcript: str | None = None
    """Words to speak or sing, verbatim."""
    language: str | None = Field(default=None, pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$")
    """BCP 47 tag of the transcript."""
    modality: Literal["speech", "sound", "music"] | None = None
    """Null is speech with a transcript and sound without."""
    duration_s: float | None = None
    """Exact duration, seconds; null follows the model (speech) or takes 5 s."""
    is_singing: bool = False
    """Whether the transcript is sung."""
    voice: str = DEFAULT_VOICE
    """A name of /v1/audio/voices."""
    voice_embedding: list[float] | None = Field(default=None, max_length=4096)
    """Speaker embedding to take on, instead of a named voice."""
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    """Same request, same seed, same audio; null draws one and says it in X-Seed."""
    num_flow_steps: int | None = None
    """Solver steps for each block; null takes the default of bundle and modality."""
    guidance_scale: float | None = None
    """How closely to follow the description; null takes the default of bundle and modality."""
    temperature: float | None = None
    """Variance of the initial noise, 0 to 4; lower is less varied. Null takes the default."""
    response_format: Format = "wav"
    """wav, pcm (16-bit little-endian, interleaved) or flac."""
    stream: bool | None = None
    """Send audio while it is made; null is true for wav and pcm, false for flac."""

    @model_validator(mode="after")
    def _consistent(self) -> GenerateBody:
        if self.stream and self.response_format not in STREAMED_FORMATS:
            raise ValueError(
                f"response_format {self.response_format!r} cannot be streamed; "
                f"use {' or '.join(STREAMED_FORMATS)}, or stream: false"
            )
        if self.voice_embedding is not None and self.voice != DEFAULT_VOICE:
            raise ValueError("give voice or voice_embedding, not both")
        return self

    @property
    def is_streamed(self) -> bool:
        """Whether the answer is sent while it is made."""
        return self.response_format in STREAMED_FORMATS if self.stream is None else self.stream

    def job(self, seed: int, voice_aliases: dict[str, str]) -> AudioJob:
        """What to make, with the seed drawn for it."""
        embedding = self.voice_embedding
        sampling = {name: getattr(self, name) for name in _SAMPLING}
        return AudioJob(
            description=self.description,
            transcript=self.transcript,
            language=self.language,
            modality=self.modality,
            duration_s=self.duration_s,
            is_singing=self.is_singing,
            voice=voice_aliases.get(self.voice, self.voice),
            voice_embedding=None if embedding is None else tuple(embedding),
            seed=seed,
            sampling={name: value for name, value in sampling.items() if value is not None},
        )


class VoiceId(_Body):
    """The object form of a voice."""

    id: str
    """A name of /v1/audio/voices."""


class SpeechBody(_Body):
    """POST /v1/audio/speech, as OpenAI's clients send it."""

    model: str
    """A name of /v1/models."""
    input: str
    """Words to speak, verbatim."""
    voice: str | VoiceId = DEFAULT_VOICE
    """A name of /v1/audio/voices."""
    instructions: str | None = None
    """Description of the voice and the scene."""
    response_format: Format = "wav"
    """wav, pcm or flac."""
    speed: float = Field(default=1.0, ge=0.25, le=4.0)
    """Only 1: pace is described in `instructions`."""
    stream_format: Literal["audio"] = "audio"
    """Only `audio`: raw chunks."""
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    """Extension: same request, same seed, same audio."""
    language: str | None = Field(default=None, pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$")
    """Extension: BCP 47 tag of the input."""

    def as_generate(self, speech_description: str) -> GenerateBody:
        """The same request in our own form."""
        return GenerateBody(
            description=self.instructions or speech_description,
            transcript=self.input,
            language=self.language,
            modality="speech",
            voice=self.voice if isinstance(self.voice, str) else self.voice.id,
            seed=self.seed,
            response_format=self.response_format,
        )


def error_envelope(
    message: str, *, kind: str, param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    """An error as OpenAI's clients read it.

    Args:
        message: The value received, the limit and the remedy.
        kind: invalid_request_error, rate_limit_error or server_error.
        param: Field of the request at fault.
        code: Word for programs.
    """
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
