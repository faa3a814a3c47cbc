"""From a described request to waveform chunks: checks, defaults, length, and streaming decode.

`Synthesizer.step` advances any number of requests by one latent block each; the command line runs
it with one request, the endpoint with as many as have a slot. What a request sounds like depends
on the request alone.
"""

from __future__ import annotations

import dataclasses
import math
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from model.bundle import Bundle
from model.config import MODALITIES, ModelConfig
from model.generation import (
    BlockOutput,
    GenerationRequest,
    GenerationState,
    Sampler,
    SamplingOptions,
)
from model.text import Prompt, null_ids, prompt_ids
from model.timebase import Timebase

DEFAULT_OPTIONS: dict[str, SamplingOptions] = {
    "speech": SamplingOptions(guidance_scale=2.0),
    "sound": SamplingOptions(guidance_scale=3.0),
    "music": SamplingOptions(guidance_scale=4.0),
}
"""Sampling of each modality where a request does not say. Guidance w is of v_u + w (v_c - v_u)."""

DEFAULT_DURATION_S = 5.0
"""Duration of sound and music where a request does not say."""

_LANGUAGE = re.compile(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*")
_SECONDS_PER_CHARACTER = 0.15
_SECONDS_PER_WIDE_CHARACTER = 0.5
_SECONDS_AROUND_SPEECH = 2.0
_SINGING_STRETCH = 2.5


class RequestError(ValueError):
    """A request asks for something that cannot be made.

    Attributes:
        field: The part of the request at fault.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(field, message)
        self.field = field
        self.message = message

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


class SynthesisError(RuntimeError):
    """Generation of one request broke down; other requests of its batch are not affected."""


@dataclass(frozen=True)
class Limits:
    """What one request may ask for.

    Attributes:
        max_description_chars: Characters of a description.
        max_transcript_chars: Characters of a transcript.
        min_duration_s: Shortest audio, seconds.
        max_duration_s: Longest audio, seconds; also caps speech that does not stop by itself.
        max_flow_steps: Solver steps for each block.
        max_guidance_scale: Guidance.
    """

    max_description_chars: int = 2000
    max_transcript_chars: int = 4096
    min_duration_s: float = 0.1
    max_duration_s: float = 120.0
    max_flow_steps: int = 256
    max_guidance_scale: float = 20.0


@dataclass(frozen=True, kw_only=True, eq=False)
class SynthesisRequest:
    """One piece of audio, described."""

    description: str
    """What it sounds like: the scene, the style, the voice."""
    transcript: str | None = None
    """Words to speak or sing, verbatim."""
    language: str | None = None
    """BCP 47 tag of the transcript."""
    modality: str | None = None
    """speech, sound or music; None is speech with a transcript and sound without."""
    duration_s: float | None = None
    """Exact duration, seconds; None leaves it to the stop head (speech) or to the default."""
    voice: Float[Tensor, " speaker_dim"] | None = None
    """Speaker embedding of the voice to take on."""
    seed: int = 0
    """Same request, same seed, same audio."""
    options: SamplingOptions | None = None
    """Sampling; None takes the defaults of the modality."""
    is_singing: bool = False
    """Whether the transcript is sung."""


@dataclass(frozen=True)
class PreparedRequest:
    """A checked request in the sampler's terms.

    Attributes:
        generation: What the sampler takes.
        num_samples: Exact length of the waveform; None follows the stop head.
    """

    generation: GenerationRequest
    num_samples: int | None


@dataclass
class Utterance:
    """Progress of one request: a value, owned by whoever opened it."""

    generation: GenerationState
    codec: Any
    num_samples: int | None
    num_emitted: int = 0


@dataclass(frozen=True)
class Piece:
    """What one step gave for one request; the waveform may be empty while the codec looks ahead."""

    waveform: Float[Tensor, "channels samples"]
    is_last: bool


def modality_of(request: SynthesisRequest) -> str:
    """The modality asked for, or the one that a transcript implies.

    Raises:
        RequestError: If it is unknown, or the transcript contradicts it.
    """
    words = request.transcript is not None
    modality = request.modality or ("speech" if words else "sound")
    if modality not in MODALITIES:
        raise RequestError("modality", f"{modality!r} is not one of {', '.join(MODALITIES)}")
    if modality == "speech" and not words and request.duration_s is None:
        raise RequestError("transcript", "speech needs a transcript, or a duration for babble")
    if request.is_singing and not words:
        raise RequestError("transcript", "singing needs the words to sing")
    return modality


def with_sampling(request: SynthesisRequest, **changes: Any) -> SynthesisRequest:
    """A request with the default sampling of its modality and what a caller changes of it.

    Args:
        request: What to make; its own options are replaced.
        changes: Fields of `SamplingOptions`; None keeps the default.

    Raises:
        RequestError: If a value is out of range.
    """
    given = {name: value for name, value in changes.items() if value is not None}
    try:
        options = dataclasses.replace(DEFAULT_OPTIONS[modality_of(request)], **given)
    except RequestError:
        raise
    except ValueError as error:
        raise RequestError(next(iter(given), "options"), str(error)) from error
    return dataclasses.replace(request, options=options)


def speech_cap_s(transcript: str, *, is_singing: bool = False) -> float:
    """Seconds no reading of a transcript should exceed, so that a missed stop ends.

    About twice the time of a slow reader: 0.15 s for a letter, 0.5 s for a digit or an ideograph,
    each of which is a syllable or more, and 2 s around.
    """
    wide = sum(
        character.isdigit() or unicodedata.east_asian_width(character) in "WF"
        for character in transcript
    )
    narrow = len(transcript) - wide
    read = narrow * _SECONDS_PER_CHARACTER + wide * _SECONDS_PER_WIDE_CHARACTER
    return _SECONDS_AROUND_SPEECH + read * (_SINGING_STRETCH if is_singing else 1.0)


def check_request(request: SynthesisRequest, limits: Limits) -> None:
    """Refuse what is empty, too long or out of range.

    Raises:
        RequestError: With the field, the value and the limit.
    """
    _check_text("description", request.description, limits.max_description_chars)
    if request.transcript is not None:
        _check_text("transcript", request.transcript, limits.max_transcript_chars)
    if request.duration_s is not None:
        _check_range("duration_s", request.duration_s, limits.min_duration_s, limits.max_duration_s)
    if not 0 <= request.seed < 2**63:
        raise RequestError("seed", f"{request.seed} is outside [0, 2^63)")
    if request.options is not None:
        options = request.options
        _check_range("num_flow_steps", options.num_flow_steps, 1, limits.max_flow_steps)
        _check_range("guidance_scale", options.guidance_scale, 0, limits.max_guidance_scale)


class Synthesizer:
    """Makes audio with one bundle. Holds no state of requests.

    Args:
        bundle: Model, codec and tokenizer.
        limits: What a request may ask for.
    """

    def __init__(self, bundle: Bundle, limits: Limits | None = None) -> None:
        self.bundle = bundle
        self.limits = limits or Limits()
        self._sampler = Sampler(bundle.model)

    @property
    def timebase(self) -> Timebase:
        """Rate of the audio it makes."""
        return self.bundle.codec.timebase

    def prepare(self, request: SynthesisRequest) -> PreparedRequest:
        """Check a request and put it in the sampler's terms.

        Raises:
            RequestError: If it cannot be made.
        """
        check_request(request, self.limits)
        modality = modality_of(request)
        config = self.bundle.model.config
        speaker = _speaker(request, config)
        duration_s = request.duration_s
        if duration_s is None and modality != "speech" and request.transcript is None:
            duration_s = DEFAULT_DURATION_S
        prompt = Prompt(
            description=request.description,
            transcript=request.transcript,
            language=request.language,
            duration_s=duration_s,
            is_singing=request.is_singing,
        )
        tokenizer = self.bundle.tokenizer
        num_samples, max_frames = self._length(request, duration_s)
        generation = GenerationRequest(
            token_ids=tuple(prompt_ids(prompt, tokenizer, speaker is not None)),
            null_ids=tuple(null_ids(tokenizer)),
            uses_expert=_uses_expert(config, modality, is_singing=request.is_singing),
            seed=request.seed,
            max_frames=max_frames,
            exact_frames=None if num_samples is None else max_frames,
            speaker=speaker,
            prompt_latents=None,
            options=request.options or DEFAULT_OPTIONS[modality],
        )
        return PreparedRequest(generation, num_samples)

    def open(self, request: SynthesisRequest) -> Utterance:
        """Check a request and read its prompt; the first step gives audio.

        Raises:
            RequestError: If it cannot be made.
        """
        prepared = self.prepare(request)
        with torch.inference_mode():
            state = self._sampler.open(prepared.generation)
            return Utterance(state, self.bundle.codec.initial_state(), prepared.num_samples)

    def step(self, utterances: Sequence[Utterance]) -> list[Piece | SynthesisError]:
        """Advance each request by one block; the audio of one never depends on the others.

        Returns:
            A piece for each request, or what broke that one down.
        """
        with torch.inference_mode():
            blocks = self._sampler.step([utterance.generation for utterance in utterances])
            pieces: list[Piece | SynthesisError | None] = [None] * len(utterances)
            for rows in _equal_lengths(blocks):
                group = [utterances[row] for row in rows]
                decoded = self._decode(group, [blocks[row] for row in rows])
                for row, piece in zip(rows, decoded, strict=True):
                    pieces[row] = piece
        return [piece for piece in pieces if piece is not None]

    def stream(self, request: SynthesisRequest) -> Iterator[Float[Tensor, "channels samples"]]:
        """Chunks of one request as they are made; concatenated they are the whole waveform.

        Raises:
            RequestError: If it cannot be made; before the first chunk.
            SynthesisError: If generation broke down.
        """
        utterance = self.open(request)
        is_last = False
        while not is_last:
            (piece,) = self.step([utterance])
            if isinstance(piece, SynthesisError):
                raise piece
            is_last = piece.is_last
            if piece.waveform.shape[-1]:
                yield piece.waveform

    def _length(
        self, request: SynthesisRequest, duration_s: float | None
    ) -> tuple[int | None, int]:
        """Exact samples if the duration is given, and the most frames to generate."""
        timebase = self.timebase
        if duration_s is not None:
            return timebase.samples_in(duration_s), timebase.frames_in(duration_s)
        cap_s = speech_cap_s(request.transcript or "", is_singing=request.is_singing)
        return None, timebase.frames_in(min(cap_s, self.limits.max_duration_s))

    def _decode(
        self, utterances: Sequence[Utterance], blocks: Sequence[BlockOutput]
    ) -> list[Piece | SynthesisError]:
        codec = self.bundle.codec
        latents = torch.stack([block.latents[: block.num_valid_frames] for block in blocks])
        waveforms, states = codec.decode_stream(
            latents, [utterance.codec for utterance in utterances], [b.is_last for b in blocks]
        )
        pieces: list[Piece | SynthesisError] = []
        for utterance, block, waveform, state in zip(
            utterances, blocks, waveforms, states, strict=True
        ):
            utterance.codec = state
            pieces.append(_piece(utterance, waveform.float().cpu(), is_last=block.is_last))
        return pieces


def _piece(
    utterance: Utterance, waveform: Float[Tensor, "channels samples"], *, is_last: bool
) -> Piece | SynthesisError:
    if utterance.num_samples is not None:
        waveform = waveform[:, : utterance.num_samples - utterance.num_emitted]
    if not bool(torch.isfinite(waveform).all()):
        return SynthesisError(
            f"audio after sample {utterance.num_emitted} is not finite; "
            "lower guidance_scale or use another seed"
        )
    utterance.num_emitted += waveform.shape[-1]
    return Piece(waveform, is_last)


def _equal_lengths(blocks: Sequence[BlockOutput]) -> list[list[int]]:
    """Rows that decode together: those with the same number of valid frames."""
    groups: dict[int, list[int]] = {}
    for row, block in enumerate(blocks):
        groups.setdefault(block.num_valid_frames, []).append(row)
    return list(groups.values())


def _uses_expert(config: ModelConfig, modality: str, *, is_singing: bool) -> bool:
    label = "singing" if is_singing else modality
    return config.expert.placement != "none" and label in config.expert.labels


def _speaker(
    request: SynthesisRequest, config: ModelConfig
) -> Float[Tensor, " speaker_dim"] | None:
    voice = request.voice
    if voice is None:
        return None
    if voice.shape != (config.speaker_dim,):
        raise RequestError(
            "voice",
            f"an embedding of {voice.numel()} values; the model takes {config.speaker_dim}",
        )
    if not bool(torch.isfinite(voice).all()):
        raise RequestError("voice", "the embedding holds values that are not finite")
    return voice.float()


def _check_text(field: str, text: str, max_chars: int) -> None:
    if not text.strip():
        raise RequestError(field, "is empty")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise RequestError(field, "holds half of a surrogate pair, which is no character")
    if len(text) > max_chars:
        raise RequestError(field, f"has {len(text)} characters; at most {max_chars} are taken")


def _check_range(field: str, value: float, low: float, high: float) -> None:
    if not (math.isfinite(value) and low <= value <= high):
        raise RequestError(field, f"is {value}; it must be in [{low}, {high}]")
