"""Bodies of requests: ours, and the speech endpoint that OpenAI's clients speak.

The bounds here hold for every endpoint; `settings.limits` of one are checked after them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from model.bundle.limits import MAX_EMBEDDING_VALUE, MAX_GUIDANCE_SCALE, Limits
from pipeline.serving.formats import STREAMED_FORMATS, Format

MAX_TEXT_CHARS = 100_000
"""Characters of a text that any endpoint may take."""
MAX_DURATION_S = 3600.0
"""Longest audio that any endpoint may make, seconds."""

DEFAULT_VOICE = "default"
"""The voice that the description alone shapes."""
_SAMPLING = ("num_flow_steps", "guidance_scale", "temperature")
"""Sampling that a request may change."""


Text = Annotated[str, Field(max_length=MAX_TEXT_CHARS)]
Name = Annotated[str, Field(max_length=256)]
Language = Annotated[str, Field(max_length=35, pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$")]
FlowSteps = Annotated[int, Field(ge=1, le=Limits.max_flow_steps)]
FlowTime = Annotated[float, Field(ge=0, le=1)]
EmbeddingValue = Annotated[float, Field(ge=-MAX_EMBEDDING_VALUE, le=MAX_EMBEDDING_VALUE)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


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
    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


class GenerateBody(_Body):
    """POST /v1/audio/generate."""

    description: Text
    """What it sounds like: the scene, the style, the voice."""
    transcript: Text | None = None
    """Words to speak or sing, verbatim."""
    language: Language | None = None
    """BCP 47 tag of the transcript."""
    modality: Literal["speech", "sound", "music"] | None = None
    """Null is speech with a transcript and sound without."""
    duration_s: float | None = Field(default=None, gt=0, le=MAX_DURATION_S)
    """Exact duration, seconds; null follows the model (speech) or takes 5 s."""
    is_singing: bool = False
    """Whether the transcript is sung."""
    voice: Name = DEFAULT_VOICE
    """A name of /v1/audio/voices."""
    voice_embedding: list[EmbeddingValue] | None = Field(default=None, max_length=4096)
    """Speaker embedding to take on, instead of a named voice."""
    seed: Seed | None = None
    """Same request, same seed, same audio; null draws one and says it in X-Seed."""
    num_flow_steps: FlowSteps | None = None
    """Solver steps for each block; null takes the default of bundle and modality."""
    guidance_scale: float | None = Field(default=None, ge=0, le=MAX_GUIDANCE_SCALE)
    """How closely to follow the description; null takes the default of bundle and modality."""
    temperature: float | None = Field(default=None, ge=0, le=4)
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

    id: Name
    """A name of /v1/audio/voices."""


class SpeechBody(_Body):
    """POST /v1/audio/speech, as OpenAI's clients send it."""

    model: Name
    """A name of /v1/models."""
    input: Text
    """Words to speak, verbatim."""
    voice: Name | VoiceId = DEFAULT_VOICE
    """A name of /v1/audio/voices."""
    instructions: Text | None = None
    """Description of the voice and the scene."""
    response_format: Format = "wav"
    """wav, pcm or flac."""
    speed: float = Field(default=1.0, ge=0.25, le=4.0)
    """Only 1: pace is described in `instructions`."""
    stream_format: Literal["audio"] = "audio"
    """Only `audio`: raw chunks."""
    seed: Seed | None = None
    """Extension: same request, same seed, same audio."""
    language: Language | None = None
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
