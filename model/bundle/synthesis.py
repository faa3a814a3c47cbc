"""From a described request to waveform chunks: sampling and streaming decode.

`Synthesizer.step` advances any number of requests by one latent block each; the command line runs
it with one request, the endpoint with as many as have a slot. What a request sounds like depends
on the request alone. Speech too long to be read in one go is generated part by part, each with the
description and the voice of the request, and comes out as one waveform. A request that names no
voice keeps that of its first part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from model.bundle.bundle import Bundle
from model.bundle.limits import Limits, RequestError
from model.bundle.preparation import (
    PreparedRequest,
    prepare,
    prepare_part,
)
from model.bundle.request import SamplingDefaults, SynthesisRequest
from model.fast.choice import fast_backbone
from model.fast.cuda_graphs import GraphBackbone
from model.inference.cache import CacheFullError, CacheSize, CacheSizeError, KVCache
from model.inference.generation import BlockOutput, GenerationRequest, GenerationState
from model.inference.sampler import Sampler
from model.timebase import Timebase

VoiceOf = Callable[[Float[Tensor, "channels samples"], int], Float[Tensor, " speaker_dim"] | None]
"""Speaker embedding of a waveform of a sample rate, as the model was trained on them; None where no
voice is heard."""

_JOIN_S = 0.005
"""Fade at both sides of the join of two parts of a text, seconds: long enough to hear no click."""


class SynthesisError(RuntimeError):
    """Generation of one request broke down; other requests of its batch are not affected."""


@dataclass
class Utterance:
    """Progress of one request: a value, owned by whoever opened it.

    Attributes:
        bundle: The bundle, with the defaults of the time.
        limits: The limits of the time.
        generation: The sampler's state of the present part of the text.
        codec: The decoder's state of that part.
        num_samples: Exact length of the waveform; None follows the stop head.
        later: The parts that follow.
        following: The next part, while it waits for room in the cache.
        refused_at: Releases of the cache when it had no room for that part.
        first_part: Waveform of the first part, whose voice the later ones take; None where they do
            not, or have it.
        num_tokens: Tokens of the prefixes read so far.
        num_emitted: Samples given so far.
        is_capped: Whether a part has reached its longest duration.
        fades_in: Whether the next samples are the first of a later part.
    """

    bundle: Bundle
    limits: Limits
    generation: GenerationState
    codec: Any
    num_samples: int | None
    later: tuple[SynthesisRequest, ...] = ()
    following: GenerationRequest | None = None
    refused_at: int | None = None
    first_part: list[Float[Tensor, "channels samples"]] | None = None
    num_tokens: int = 0
    num_emitted: int = 0
    is_capped: bool = False
    fades_in: bool = False


@dataclass(frozen=True)
class Piece:
    """Result of one step for one request.

    Attributes:
        waveform: New samples; empty while the codec looks ahead.
        is_last: Whether the request is finished.
        is_capped: Whether speech, so far, reached its longest duration without a stop decision or
            before its last word; words at its end may then be missing.
        is_waiting: Whether the step did nothing, since the next part of the text has no room in the
            cache; another step is of use when a request has given room back.
        frees_room: Whether the request has given room back with the end of a part.
    """

    waveform: Float[Tensor, "channels samples"]
    is_last: bool
    is_capped: bool = False
    is_waiting: bool = False
    frees_room: bool = False


class Synthesizer:
    """Makes audio with one bundle. Holds no state of requests.

    `configure` may be called at any time: requests that are open keep what they began with.

    Args:
        bundle: Model, codec and tokenizer.
        limits: Limits of a request.
        cache_size: Memory for the requests that run together, allocated now; longer requests are
            refused. None grows with demand.
        max_cache_bytes: Memory up to which it grows; a request that does not fit beside those that
            run cannot be opened until some have ended. None is no limit.
        voice_of: Finds the voice of the first part of a long text for its later parts; None leaves
            every part to the description.
    """

    def __init__(
        self,
        bundle: Bundle,
        limits: Limits | None = None,
        cache_size: CacheSize | None = None,
        max_cache_bytes: int | None = None,
        voice_of: VoiceOf | None = None,
    ) -> None:
        self.bundle = bundle
        self._voice_of = voice_of
        self.limits = limits or Limits()
        model = bundle.model
        cache = KVCache(model.config, model.device, model.dtype, cache_size, max_cache_bytes)
        self._backbone = fast_backbone(model.backbone, cache)
        self._sampler = Sampler(model, self._backbone, cache)

    def configure(self, limits: Limits, sampling: SamplingDefaults) -> None:
        """Take other limits and default sampling options for the requests that follow."""
        self.limits = limits
        self.bundle = replace(self.bundle, sampling=sampling)

    @property
    def timebase(self) -> Timebase:
        """Rate of the audio it makes."""
        return self.bundle.codec.timebase

    def prepare(self, request: SynthesisRequest) -> PreparedRequest:
        """Check a request and put it in the sampler's terms.

        Raises:
            RequestError: If it cannot be made.
        """
        return prepare(request, self.bundle, self.limits)

    def open(self, request: SynthesisRequest) -> Utterance:
        """Check a request and read its prompt; the first step gives audio.

        Raises:
            RequestError: If it cannot be made.
            CacheFullError: If the cache has no room for it beside the requests that run.
        """
        prepared = self.prepare(request)
        with torch.inference_mode():
            try:
                state = self._sampler.open(prepared.generation)
            except CacheSizeError as error:
                raise RequestError(_longest_part(request, prepared), str(error)) from error
        return Utterance(
            self.bundle,
            self.limits,
            state,
            self.bundle.codec.initial_state(),
            prepared.num_samples,
            prepared.parts[1:],
            first_part=[] if self._keeps_voice(request, prepared) else None,
            num_tokens=len(prepared.generation.token_ids),
        )

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
            A piece for each request, or its error.
        """
        with torch.inference_mode():
            pieces: dict[int, Piece | SynthesisError | None] = {
                row: self._open_next(utterance) for row, utterance in enumerate(utterances)
            }
            rows = [row for row, utterance in enumerate(utterances) if utterance.following is None]
            pieces.update(zip(rows, self._advance([utterances[row] for row in rows]), strict=True))
        silence = torch.zeros(self.bundle.codec.num_channels, 0)
        nothing = Piece(silence, is_last=False, is_waiting=True)
        return [pieces[row] or nothing for row in range(len(utterances))]

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
        """The result of each step for one request; raises as `stream` does."""
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

    def _advance(self, utterances: Sequence[Utterance]) -> list[Piece | SynthesisError]:
        """The next block of requests whose part is open."""
        blocks = self._sampler.step([utterance.generation for utterance in utterances])
        pieces: dict[int, Piece | SynthesisError] = {}
        for rows in _equal_lengths(blocks):
            group = [utterances[row] for row in rows]
            decoded = self._decode(group, [blocks[row] for row in rows])
            pieces.update(zip(rows, decoded, strict=True))
        for row, utterance in enumerate(utterances):
            piece = pieces[row]
            if utterance.first_part is not None and isinstance(piece, Piece):
                utterance.first_part.append(piece.waveform)
            if blocks[row].is_last and utterance.later and isinstance(piece, Piece):
                pieces[row] = self._go_on(utterance, piece)
        return [pieces[row] for row in range(len(utterances))]

    def _keeps_voice(self, request: SynthesisRequest, prepared: PreparedRequest) -> bool:
        """Whether later parts take the voice of the first: none is named, nor in a recording."""
        has_voice = request.voice is not None or request.continues is not None
        knows_voices = (
            self.bundle.model.config.speaker_id is not None and self._voice_of is not None
        )
        return len(prepared.parts) > 1 and knows_voices and not has_voice

    def _take_voice(self, utterance: Utterance) -> None:
        """Give the later parts of a request the voice of the first."""
        if utterance.first_part is None or self._voice_of is None:
            return
        spoken = torch.cat(utterance.first_part, dim=-1)
        utterance.first_part = None
        voice = self._voice_of(spoken, self.timebase.sample_rate)
        utterance.later = tuple(replace(part, voice=voice) for part in utterance.later)

    def _go_on(self, utterance: Utterance, piece: Piece) -> Piece | SynthesisError:
        """Go on to the next part of a text whose last part has ended with this piece."""
        self._sampler.close(utterance.generation)
        self._take_voice(utterance)
        part, *rest = utterance.later
        utterance.later = tuple(rest)
        try:
            following = prepare_part(part, utterance.bundle, utterance.limits)
        except RequestError as error:
            return SynthesisError(f"the next part of the text cannot be read: {error}")
        utterance.following = following
        utterance.num_tokens += len(following.token_ids)
        if (failure := self._open_next(utterance)) is not None:
            return failure
        utterance.codec = self.bundle.codec.initial_state()
        utterance.fades_in = True
        ramp = _ramp(piece.waveform, self.timebase)
        waveform = piece.waveform.clone()
        waveform[:, waveform.shape[1] - len(ramp) :] *= ramp.flip(0)
        return Piece(waveform, is_last=False, is_capped=piece.is_capped, frees_room=True)

    def _open_next(self, utterance: Utterance) -> SynthesisError | None:
        """Open the next part where one waits and the cache has room for it."""
        num_releases = self._sampler.cache.num_releases
        if utterance.following is None or utterance.refused_at == num_releases:
            return None
        try:
            utterance.generation = self._sampler.open(utterance.following)
        except CacheFullError:
            utterance.refused_at = num_releases
            return None
        except CacheSizeError as error:
            return SynthesisError(f"the next part of the text cannot be read: {error}")
        utterance.following = None
        return None

    def _decode(
        self, utterances: Sequence[Utterance], blocks: Sequence[BlockOutput]
    ) -> list[Piece | SynthesisError]:
        """Decode the blocks of requests that have as many valid frames."""
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
    """The samples of a step as a piece, or the error if they are not finite."""
    if utterance.num_samples is not None:
        waveform = waveform[:, : utterance.num_samples - utterance.num_emitted]
    if not bool(torch.isfinite(waveform).all()):
        return SynthesisError(
            f"audio after sample {utterance.num_emitted} is not finite; "
            "lower guidance_scale or use another seed"
        )
    utterance.num_emitted += waveform.shape[-1]
    generation = utterance.generation
    if is_last:
        request = generation.request
        is_full = request.exact_frames is None and generation.num_frames >= request.max_frames
        utterance.is_capped = utterance.is_capped or is_full or generation.is_cut
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
