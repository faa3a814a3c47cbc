"""From a described request to waveform chunks: prompt, length, and streaming decode.

`Synthesizer.step` advances any number of requests by one latent block each; the command line runs
it with one request, the endpoint with as many as have a slot. What a request sounds like depends
on the request alone. Speech too long to be read in one go is generated part by part, each with the
description and the voice of the request, and comes out as one waveform.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from model.bundle.bundle import Bundle
from model.bundle.card import language_of
from model.bundle.limits import (
    DEFAULT_DURATION_S,
    Limits,
    RequestError,
    check_request,
    is_split,
    modality_of,
)
from model.bundle.reading import part_seed, parts_of, speech_bounds_s
from model.bundle.request import SpeechPrompt, SynthesisRequest, sampling_of
from model.config import ModelConfig
from model.fast.choice import fast_backbone
from model.fast.cuda_graphs import GraphBackbone
from model.inference.cache import CacheSize, CacheSizeError, KVCache
from model.inference.generation import BlockOutput, GenerationRequest, GenerationState
from model.inference.sampler import Sampler
from model.text import Prompt, clean_text, null_ids, num_word_tokens, prompt_ids
from model.timebase import Timebase

_JOIN_S = 0.005
"""Fade at both sides of the join of two parts of a text, seconds: long enough to hear no click."""


class SynthesisError(RuntimeError):
    """Generation of one request broke down; other requests of its batch are not affected."""


@dataclass(frozen=True)
class PreparedRequest:
    """A checked request in the sampler's terms.

    Attributes:
        generation: What the sampler takes; of a long text, its first part.
        num_samples: Exact length of the waveform; None follows the stop head.
        later: The further parts of a long text, in order.
    """

    generation: GenerationRequest
    num_samples: int | None
    later: tuple[GenerationRequest, ...] = ()


@dataclass(frozen=True)
class _Lengths:
    """Exact samples and frames where the duration is given, else bounds for the stop head."""

    num_samples: int | None
    exact_frames: int | None
    min_frames: int
    max_frames: int


@dataclass
class Utterance:
    """Progress of one request: a value, owned by whoever opened it."""

    generation: GenerationState
    codec: Any
    num_samples: int | None
    later: tuple[GenerationRequest, ...] = ()
    num_emitted: int = 0
    is_capped: bool = False
    fades_in: bool = False


@dataclass(frozen=True)
class Piece:
    """What one step gave for one request.

    Attributes:
        waveform: New samples; empty while the codec looks ahead.
        is_last: Whether the request is finished.
        is_capped: Whether speech, so far, reached its longest duration without a stop decision;
            words at its end may then be missing.
    """

    waveform: Float[Tensor, "channels samples"]
    is_last: bool
    is_capped: bool = False


class Synthesizer:
    """Makes audio with one bundle. Holds no state of requests.

    Args:
        bundle: Model, codec and tokenizer.
        limits: What a request may ask for.
        cache_size: Memory for the requests that run together, allocated now; longer requests are
            refused. None grows with demand.
    """

    def __init__(
        self, bundle: Bundle, limits: Limits | None = None, cache_size: CacheSize | None = None
    ) -> None:
        self.bundle = bundle
        self.limits = limits or Limits()
        model = bundle.model
        cache = KVCache(model.config, model.device, model.dtype, cache_size)
        self._backbone = fast_backbone(model.backbone, cache)
        self._sampler = Sampler(model, self._backbone, cache)

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
        _check_continued(request, self.bundle.model.config)
        speaker = _speaker(request, self.bundle.model.config)
        transcript = None if request.transcript is None else clean_text(request.transcript)[0]
        if transcript is None or not is_split(request):
            generation, num_samples = self._part(request, transcript, speaker, request.seed)
            return PreparedRequest(generation, num_samples)
        # A slow reading takes shorter parts; a fast one keeps to the text of training clips.
        longest_part_s = self.limits.longest_part_s * min(1.0, request.speed)
        parts = parts_of(transcript, request.language, longest_part_s)
        first, *later = (
            self._part(request, part, speaker, part_seed(request.seed, index))[0]
            for index, part in enumerate(parts)
        )
        return PreparedRequest(first, None, tuple(later))

    def open(self, request: SynthesisRequest) -> Utterance:
        """Check a request and read its prompt; the first step gives audio.

        Raises:
            RequestError: If it cannot be made.
        """
        prepared = self.prepare(request)
        with torch.inference_mode():
            try:
                state = self._sampler.open(prepared.generation)
            except CacheSizeError as error:
                raise RequestError(_longest_part(request, prepared), str(error)) from error
            codec = self.bundle.codec.initial_state()
            return Utterance(state, codec, prepared.num_samples, prepared.later)

    def warm_up(self) -> None:
        """Capture the passes of the sampler, where they are captured; minutes for a large model."""
        if isinstance(self._backbone, GraphBackbone):
            self._backbone.warm_up()

    def close(self, utterance: Utterance) -> None:
        """Free what a request holds, ended or not; it cannot step again."""
        self._sampler.close(utterance.generation)

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
            for row, utterance in enumerate(utterances):
                if blocks[row].is_last and utterance.later:
                    pieces[row] = self._go_on(utterance, pieces[row])
        return [piece for piece in pieces if piece is not None]

    def stream(self, request: SynthesisRequest) -> Iterator[Float[Tensor, "channels samples"]]:
        """Chunks of one request as they are made; concatenated they are the whole waveform.

        Raises:
            RequestError: If it cannot be made; before the first chunk.
            SynthesisError: If generation broke down.
        """
        for piece in self.pieces(request):
            if piece.waveform.shape[-1]:
                yield piece.waveform

    def pieces(self, request: SynthesisRequest) -> Iterator[Piece]:
        """What each step gives for one request; raises as `stream` does."""
        utterance = self.open(request)
        is_last = False
        try:
            while not is_last:
                (piece,) = self.step([utterance])
                if isinstance(piece, SynthesisError):
                    raise piece
                is_last = piece.is_last
                yield piece
        finally:
            self.close(utterance)

    def _part(
        self,
        request: SynthesisRequest,
        transcript: str | None,
        speaker: Float[Tensor, " speaker_dim"] | None,
        seed: int,
    ) -> tuple[GenerationRequest, int | None]:
        """A request, or a part of its transcript, in the sampler's terms, with its exact length."""
        config, tokenizer = self.bundle.model.config, self.bundle.tokenizer
        modality = modality_of(request)
        duration_s = request.duration_s
        if duration_s is None and modality != "speech" and transcript is None:
            duration_s = min(DEFAULT_DURATION_S, self.limits.max_duration_s)
        said, before = transcript, _whole_blocks(request.continues, config)
        if request.continues is not None:
            said = f"{request.continues.transcript} {transcript}"
        prompt = Prompt(
            description=clean_text(request.description)[0],
            transcript=said,
            language=request.language or (language_of(self.bundle.card) if transcript else None),
            duration_s=self._whole_duration_s(duration_s, before),
            is_singing=request.is_singing,
        )
        num_words = num_word_tokens(prompt, tokenizer) if config.paces_speech else 0
        if request.speed != 1.0 and (not num_words or duration_s is not None):
            raise RequestError(
                "speed",
                f"is {request.speed:g}; it takes a model that knows the speaking rate, a "
                "transcript and no duration: leave it out",
            )
        lengths = self._lengths(request, transcript or "", duration_s)
        pace = None
        if request.continues is not None and num_words:
            # The new words start where the recording ends.
            pace = len(before) / len(tokenizer.encode(request.continues.transcript))
        elif lengths.exact_frames is not None and num_words:
            pace = lengths.exact_frames / num_words
        generation = GenerationRequest(
            token_ids=tuple(prompt_ids(prompt, tokenizer, speaker is not None)),
            null_ids=tuple(null_ids(tokenizer)),
            uses_expert=config.expert.routes(modality, is_singing=request.is_singing),
            seed=seed,
            max_frames=lengths.max_frames,
            min_frames=lengths.min_frames,
            exact_frames=lengths.exact_frames,
            num_words=num_words,
            frames_per_word=pace,
            speed=request.speed,
            speaker=speaker,
            prompt_latents=before if len(before) else None,
            options=sampling_of(request, self.limits, self.bundle.sampling),
        )
        return generation, lengths.num_samples

    def _whole_duration_s(self, duration_s: float | None, before: Tensor) -> float | None:
        """Duration of the recording and of what follows; training names that of a whole clip."""
        if duration_s is None:
            return None
        return duration_s + len(before) / self.timebase.frame_rate

    def _go_on(
        self, utterance: Utterance, piece: Piece | SynthesisError | None
    ) -> Piece | SynthesisError | None:
        """Begin the next part of a text whose last part has ended with this piece."""
        if not isinstance(piece, Piece):
            return piece
        self._sampler.close(utterance.generation)
        following, *rest = utterance.later
        try:
            utterance.generation = self._sampler.open(following)
        except CacheSizeError as error:
            return SynthesisError(f"the next part of the text cannot be read: {error}")
        utterance.later = tuple(rest)
        utterance.codec = self.bundle.codec.initial_state()
        utterance.fades_in = True
        ramp = _ramp(piece.waveform, self.timebase)
        waveform = piece.waveform.clone()
        waveform[:, waveform.shape[1] - len(ramp) :] *= ramp.flip(0)
        return Piece(waveform, is_last=False, is_capped=piece.is_capped)

    def _lengths(
        self, request: SynthesisRequest, transcript: str, duration_s: float | None
    ) -> _Lengths:
        timebase = self.timebase
        if duration_s is not None:
            frames = timebase.frames_in(duration_s)
            return _Lengths(timebase.samples_in(duration_s), frames, frames, frames)
        shortest_s, longest_s = speech_bounds_s(transcript, is_singing=request.is_singing)
        shortest_s, longest_s = shortest_s / request.speed, longest_s / request.speed
        longest_s = min(longest_s, self.limits.max_duration_s)
        return _Lengths(
            num_samples=None,
            exact_frames=None,
            min_frames=max(1, timebase.frames_in(min(shortest_s, longest_s))),
            max_frames=max(1, timebase.frames_in(longest_s)),
        )

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
            waveform = waveform.float().cpu()
            if utterance.fades_in and waveform.shape[-1]:
                ramp = _ramp(waveform, self.timebase)
                waveform = torch.cat([waveform[:, : len(ramp)] * ramp, waveform[:, len(ramp) :]], 1)
                utterance.fades_in = False
            pieces.append(_piece(utterance, waveform, is_last=block.is_last))
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
    generation = utterance.generation
    if is_last and generation.request.exact_frames is None:
        is_full = generation.num_frames >= generation.request.max_frames
        utterance.is_capped = utterance.is_capped or is_full
    return Piece(waveform, is_last, utterance.is_capped)


def _ramp(
    waveform: Float[Tensor, "channels samples"], timebase: Timebase
) -> Float[Tensor, " ramp"]:
    """Gain from 0 to 1 over the join of two parts, which starts from silence without a click."""
    num_samples = min(waveform.shape[-1], timebase.samples_in(_JOIN_S))
    return torch.linspace(0, 1, num_samples)


def _longest_part(request: SynthesisRequest, prepared: PreparedRequest) -> str:
    """The field to shorten where a request needs too much cache."""
    if len(prepared.generation.token_ids) < prepared.generation.frame_limit:
        return "duration_s"
    is_said = len(request.transcript or "") > len(request.description)
    return "transcript" if is_said else "description"


def _equal_lengths(blocks: Sequence[BlockOutput]) -> list[list[int]]:
    """Rows that decode together: those with the same number of valid frames."""
    groups: dict[int, list[int]] = {}
    for row, block in enumerate(blocks):
        groups.setdefault(block.num_valid_frames, []).append(row)
    return list(groups.values())


def _check_continued(request: SynthesisRequest, config: ModelConfig) -> None:
    if (prompt := request.continues) is None:
        return
    if request.transcript is None or request.is_singing or modality_of(request) != "speech":
        raise RequestError("continue", "only speech continues a recording; give a transcript")
    frames, latent_dim = prompt.latents.shape
    if latent_dim != config.latent_dim:
        raise RequestError(
            "continue",
            f"latents of width {latent_dim}; the model takes {config.latent_dim}: encode the "
            "recording with the codec of the bundle",
        )
    if frames < config.frames_per_block:
        raise RequestError(
            "continue",
            f"the recording has {frames} latent frames; at least {config.frames_per_block} are "
            "needed: record a longer one",
        )
    if not bool(torch.isfinite(prompt.latents).all()):
        raise RequestError("continue", "the latents hold values that are not finite")


def _whole_blocks(
    prompt: SpeechPrompt | None, config: ModelConfig
) -> Float[Tensor, "frames latent_dim"]:
    """The last whole blocks of a recording; none without one."""
    if prompt is None:
        return torch.zeros(0, config.latent_dim)
    extra = len(prompt.latents) % config.frames_per_block
    return prompt.latents[extra:]


def _speaker(
    request: SynthesisRequest, config: ModelConfig
) -> Float[Tensor, " speaker_dim"] | None:
    voice = request.voice
    if voice is None:
        return None
    if config.speaker_id is None:
        raise RequestError("voice", "the model was built without voices; leave it out")
    if voice.shape != (config.speaker_dim,):
        raise RequestError(
            "voice",
            f"an embedding of {voice.numel()} values; the model takes {config.speaker_dim}",
        )
    if not bool(torch.isfinite(voice).all()):
        raise RequestError("voice", "the embedding holds values that are not finite")
    return voice.float()
