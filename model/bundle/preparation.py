"""From a request to the sampler's terms: prompt, voice, length, speaking rate, parts of a text."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

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
from model.inference.generation import GenerationRequest
from model.sequence import has_open_end
from model.tempo import position_rate
from model.text import Prompt, clean_text, null_ids, num_word_tokens, prompt_ids


@dataclass(frozen=True)
class PreparedRequest:
    """A checked request in the sampler's terms.

    Attributes:
        generation: What the sampler takes; of a long text, its first part.
        num_samples: Exact length of the waveform; None follows the stop head.
        parts: The request with each part of its text that is read in one go, cleaned, and the seed
            of that part; the first is that of `generation`.
    """

    generation: GenerationRequest
    num_samples: int | None
    parts: tuple[SynthesisRequest, ...]


def prepare(request: SynthesisRequest, bundle: Bundle, limits: Limits) -> PreparedRequest:
    """Check a request and put it in the sampler's terms; `RequestError` if it cannot be made."""
    check_request(request, limits)
    _check_voice(request.voice, bundle.model.config)
    _check_continued(request, bundle.model.config)
    texts = [None if request.transcript is None else clean_text(request.transcript)[0]]
    if texts[0] is not None and is_split(request):
        # A slow reading takes shorter parts; a fast one keeps to the text of training clips.
        longest_part_s = limits.longest_part_s * min(1.0, request.speed)
        texts = [*parts_of(texts[0], request.language, longest_part_s)]
    parts = tuple(
        dataclasses.replace(request, transcript=text, seed=part_seed(request.seed, index))
        for index, text in enumerate(texts)
    )
    duration_s = _duration_s(request, limits)
    num_samples = None if duration_s is None else bundle.codec.timebase.samples_in(duration_s)
    return PreparedRequest(prepare_part(parts[0], bundle, limits), num_samples, parts)


def prepare_part(request: SynthesisRequest, bundle: Bundle, limits: Limits) -> GenerationRequest:
    """A part of a checked request in the sampler's terms; `RequestError` as in `prepare`."""
    config, tokenizer, timebase = bundle.model.config, bundle.tokenizer, bundle.codec.timebase
    duration_s = _duration_s(request, limits)
    before = _whole_blocks(request.continues, config)
    prompt = _prompt(request, duration_s, len(before) / timebase.frame_rate)
    if request.transcript and not prompt.language:
        prompt = dataclasses.replace(prompt, language=language_of(bundle.card))
    num_words = num_word_tokens(prompt, tokenizer) if config.paces_speech else 0
    if request.speed != 1.0 and (not num_words or duration_s is not None):
        raise RequestError(
            "speed",
            f"is {request.speed:g}; it takes a model that knows the speaking rate, a "
            "transcript and no duration: leave it out",
        )
    bounds_s = speech_bounds_s(request.transcript or "", is_singing=request.is_singing)
    min_frames, max_frames = (
        max(1, timebase.frames_in(min(bound_s / request.speed, limits.max_duration_s)))
        for bound_s in bounds_s
    )
    exact_frames: int | None = None
    if duration_s is not None:
        exact_frames = min_frames = max_frames = timebase.frames_in(duration_s)
    num_prompt_words = 0
    if num_words and request.continues is not None:
        # The new words start where the recording ends.
        spoken = dataclasses.replace(prompt, transcript=request.continues.transcript)
        num_prompt_words = min(num_word_tokens(spoken, tokenizer), num_words - 1)
    return GenerationRequest(
        token_ids=tuple(prompt_ids(prompt, tokenizer, request.voice is not None)),
        null_ids=tuple(null_ids(tokenizer)),
        uses_expert=config.expert.routes(modality_of(request), is_singing=request.is_singing),
        seed=request.seed,
        max_frames=max_frames,
        min_frames=min_frames,
        exact_frames=exact_frames,
        num_words=num_words,
        num_prompt_words=num_prompt_words,
        speed=request.speed,
        position_rate=position_rate(prompt, config, timebase),
        speaker=None if request.voice is None else request.voice.float(),
        prompt_latents=before if len(before) else None,
        options=sampling_of(request, limits, bundle.sampling),
    )


def _duration_s(request: SynthesisRequest, limits: Limits) -> float | None:
    """Exact duration of a request; None leaves it to the model."""
    is_open = has_open_end(modality_of(request), request.transcript is not None)
    if request.duration_s is None and not is_open:
        return min(DEFAULT_DURATION_S, limits.max_duration_s)
    return request.duration_s


def _prompt(request: SynthesisRequest, duration_s: float | None, before_s: float) -> Prompt:
    """The text that the model reads; training names words and duration of a whole clip, here of
    the recording and of what follows."""
    transcript = request.transcript
    if request.continues is not None:
        transcript = f"{request.continues.transcript} {transcript}"
    return Prompt(
        description=clean_text(request.description)[0],
        transcript=transcript,
        language=request.language,
        duration_s=None if duration_s is None else duration_s + before_s,
        is_singing=request.is_singing,
    )


def _whole_blocks(
    prompt: SpeechPrompt | None, config: ModelConfig
) -> Float[Tensor, "frames latent_dim"]:
    """The last whole blocks of a recording; none without one."""
    if prompt is None:
        return torch.zeros(0, config.latent_dim)
    return prompt.latents[len(prompt.latents) % config.frames_per_block :]


def _check_voice(voice: Tensor | None, config: ModelConfig) -> None:
    """Raise `RequestError` unless the model takes the voice."""
    if voice is None:
        return
    if config.speaker_id is None:
        raise RequestError("voice", "the model was built without voices; leave it out")
    if voice.shape != (config.speaker_dim,):
        raise RequestError(
            "voice",
            f"an embedding of {voice.numel()} values; the model takes {config.speaker_dim}",
        )
    if not bool(torch.isfinite(voice).all()):
        raise RequestError("voice", "the embedding holds values that are not finite")


def _check_continued(request: SynthesisRequest, config: ModelConfig) -> None:
    """Raise `RequestError` unless speech can continue the recording of the request."""
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
