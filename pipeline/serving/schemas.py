"""Bodies of requests: ours, and the speech endpoint that OpenAI's clients speak.

The bounds here hold for every endpoint; `settings.limits` of one are checked after them.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)

from model.bundle.limits import (
    MAX_EMBEDDING_VALUE,
    MAX_TEXT_CHARS,
    AudioRequest,
    Limits,
    RequestError,
)
from model.config import MAX_GUIDANCE_SCALE
from pipeline.continuation import SpokenRecording
from pipeline.serving.formats import OPENAI_PCM_RATE, AudioLayout, Format

MAX_DURATION_S = 3600.0
"""Upper bound of any duration limit, seconds."""

MAX_VARIANTS = 8
"""Maximum of `n`."""

VOICE_NAME = r"^[a-z0-9][a-z0-9_-]{0,63}$"
"""Pattern of the names of voices that clients add."""
DEFAULT_VOICE = "default"
"""No named voice: the description shapes it. Words that have none are spoken in the default voice
of the bundle."""
_SAMPLING = ("num_flow_steps", "guidance_scale", "temperature")
"""Sampling options that a request may set."""


Text = Annotated[str, Field(max_length=MAX_TEXT_CHARS)]
Name = Annotated[str, Field(max_length=256)]
Language = Annotated[str, Field(max_length=35, pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$")]
FlowSteps = Annotated[int, Field(ge=1, le=Limits.max_flow_steps)]
EmbeddingValue = Annotated[float, Field(ge=-MAX_EMBEDDING_VALUE, le=MAX_EMBEDDING_VALUE)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Consent = Annotated[str, Field(min_length=8, max_length=1000, pattern=r"\w")]


def _decoded(value: object) -> bytes:
    """Bytes as they are, or out of base64."""
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise ValueError(f"is a {type(value).__name__}, not base64")
    try:
        return base64.b64decode(value, validate=True)
    except ValueError as error:
        raise ValueError(f"is not base64: {error}") from error


Recording = Annotated[
    bytes,
    BeforeValidator(_decoded),
    WithJsonSchema({"type": "string", "contentEncoding": "base64"}),
]
"""An audio file in any common format, in base64 where the body is JSON."""


@dataclass(frozen=True, kw_only=True)
class AudioJob(AudioRequest):
    """One piece of audio to make, in plain values that travel between processes."""

    is_described: bool = True
    """False if `description` is a default, which the description of the voice replaces."""
    voice: str = DEFAULT_VOICE
    voice_embedding: tuple[float, ...] | None = None
    continues: SpokenRecording | None = None


@dataclass(frozen=True)
class Form:
    """Format of an answer.

    Attributes:
        audio_format: Format of the audio.
        is_streamed: Whether to send audio while it is made.
        has_events: Whether the stream is one of server-sent events with the audio in base64.
        layout: Rate and channels to convert to; None keeps the model's as far as the format can.
        names_origin: Whether the file names generator, model and seed, where its format can.
    """

    audio_format: Format
    is_streamed: bool = True
    has_events: bool = False
    layout: AudioLayout | None = None
    names_origin: bool = True


class _Body(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


class _AudioBody(_Body):
    """Fields of every request for audio."""

    language: Language | None = None
    """BCP 47 tag of the words."""
    seed: Seed | None = None
    """The same request with the same seed gives the same audio; null draws a random seed, which the
    header X-Seed reports."""


class _RecordedBody(_Body):
    """Fields of every recording of a speaker."""

    consent: Consent
    """Statement that the speaker agrees to this use of the voice; it is kept with a voice that is
    uploaded."""


class ContinuationBody(_RecordedBody):
    """A recording that speech continues."""

    audio: Recording
    """Recording of the speaker, 1 to 30 s between its silences."""
    transcript: str = Field(max_length=1000)
    """What is said in it, verbatim."""


class GenerationBody(_AudioBody):
    """POST /v1/audio/generations."""

    description: Text | None = None
    """What it sounds like: the scene, the style, the voice. Null is for words to speak: they take
    the description of their voice, and where none is named the default voice of the bundle."""
    transcript: Text | None = None
    """Words to speak or sing, verbatim."""
    modality: Literal["speech", "sound", "music"] | None = None
    """Null defaults to speech with a transcript and to sound without one."""
    seconds: float | None = Field(default=None, gt=0, le=MAX_DURATION_S)
    """Exact duration; null lets the model decide (speech) or defaults to 5 s."""
    is_singing: bool = False
    """Whether the transcript is sung."""
    voice: Name = DEFAULT_VOICE
    """A name of /v1/audio/voices."""
    voice_embedding: list[EmbeddingValue] | None = Field(default=None, max_length=4096)
    """Speaker embedding to take on, instead of a named voice."""
    continuation: ContinuationBody | None = None
    """Recording to continue in its voice and pace; the audio holds the new words of `transcript`
    only. The endpoint must allow it (`continues_recordings`)."""
    n: int = Field(default=1, ge=1, le=MAX_VARIANTS)
    """Pieces of audio, with the seeds `seed`, `seed + 1`, ...; more than one are answered in JSON,
    each whole and in base64."""
    num_flow_steps: FlowSteps | None = None
    """Solver steps for each block; null is the default of bundle and modality."""
    guidance_scale: float | None = Field(default=None, ge=0, le=MAX_GUIDANCE_SCALE)
    """How closely to follow the description; null is the default of bundle and modality."""
    temperature: float | None = Field(default=None, ge=0, le=4)
    """Variance of the initial noise, 0 to 4; lower is less varied. Null is the default."""
    response_format: Format = "wav"
    """mp3, opus (in Ogg), aac (ADTS), flac, wav, or pcm (16-bit little-endian, interleaved)."""
    stream: bool | None = None
    """Whether to stream the audio while it is generated; null streams if `n` is 1. False sends a
    file whose header states its length."""

    @model_validator(mode="after")
    def _consistent(self) -> GenerationBody:
        if self.n > 1 and self.stream:
            raise ValueError(f"n is {self.n}; only one piece can be streamed: leave out stream")
        if self.voice_embedding is not None and self.voice != DEFAULT_VOICE:
            raise ValueError("give voice or voice_embedding, not both")
        return self

    @property
    def form(self) -> Form:
        """Format of the answer."""
        is_streamed = self.n == 1 if self.stream is None else self.stream
        return Form(self.response_format, is_streamed)

    def job(self, seed: int, speech_description: str) -> AudioJob:
        """The job.

        Args:
            seed: Seed of the job.
            speech_description: Description where neither the body nor the voice has one.

        Raises:
            RequestError: If there is no description, and it is not speech that is wanted.
        """
        is_speech = self.modality in (None, "speech") and not self.is_singing
        if self.description is None and (self.transcript is None or not is_speech):
            raise RequestError(
                "description", "is missing; only words to speak (`transcript`) go without"
            )
        embedding = self.voice_embedding
        sampling = {name: getattr(self, name) for name in _SAMPLING}
        return AudioJob(
            description=speech_description if self.description is None else self.description,
            is_described=self.description is not None,
            transcript=self.transcript,
            language=self.language,
            modality=self.modality,
            duration_s=self.seconds,
            is_singing=self.is_singing,
            voice=self.voice,
            voice_embedding=None if embedding is None else tuple(embedding),
            seed=seed,
            sampling={name: value for name, value in sampling.items() if value is not None},
        )


class VoiceId(_Body):
    """The object form of a voice."""

    id: Name
    """A name of /v1/audio/voices."""


class SpeechBody(_AudioBody):
    """POST /v1/audio/speech, as OpenAI's clients send it; unknown fields are ignored.

    `language`, `seed` and `stream` are extensions.
    """

    model_config = ConfigDict(extra="allow")

    model: Name
    """A name of /v1/models."""
    input: Text
    """Words to speak, verbatim."""
    voice: Name | VoiceId = DEFAULT_VOICE
    """A name of /v1/audio/voices; OpenAI's names are among them."""
    instructions: Text | None = None
    """Description of the voice and the scene."""
    response_format: Format = "mp3"
    """mp3, opus (in Ogg), aac (ADTS), flac, wav, or pcm (16-bit little-endian, 24 kHz, mono)."""
    speed: float = Field(default=1.0, ge=0.25, le=4.0)
    """Speaking rate; the pitch stays."""
    stream_format: Literal["audio", "sse"] = "audio"
    """audio sends bytes of the file; sse sends them in base64 as server-sent events."""
    stream: bool = True
    """False sends a file whose header states its length."""

    @model_validator(mode="after")
    def _consistent(self) -> SpeechBody:
        if self.stream_format == "sse" and not self.stream:
            raise ValueError("stream_format sse is a stream; leave out stream: false")
        return self

    @property
    def ignored(self) -> list[str]:
        """Names of unknown fields, which are ignored."""
        return sorted(self.model_extra or {})

    @property
    def form(self) -> Form:
        """Format of the answer; raw PCM has the layout that OpenAI's clients expect."""
        layout = AudioLayout(OPENAI_PCM_RATE, 1) if self.response_format == "pcm" else None
        return Form(self.response_format, self.stream, self.stream_format == "sse", layout)

    def job(self, seed: int, speech_description: str) -> AudioJob:
        """The job.

        Args:
            seed: Seed of the job.
            speech_description: Description where neither the body nor the voice has one.
        """
        return AudioJob(
            description=self.instructions or speech_description,
            is_described=bool(self.instructions),
            transcript=self.input,
            language=self.language,
            modality="speech",
            voice=self.voice if isinstance(self.voice, str) else self.voice.id,
            seed=seed,
            speed=self.speed,
        )


class VoiceBody(_RecordedBody):
    """POST /v1/audio/voices as JSON; a form has the same fields, with the file itself."""

    name: str = Field(pattern=VOICE_NAME)
    """What requests will call the voice: a-z, 0-9, _ and -, at most 64 characters."""
    audio_sample: Recording
    """Recording of the speaker, 1 to 120 s."""
