"""Requests are checked, lengths are kept, and chunks concatenate to the offline decode."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from model.bundle.limits import Limits
from model.bundle.request import DEFAULT_DURATION_S, RequestError, SynthesisRequest, speech_bounds_s
from model.bundle.synthesis import SynthesisError, Synthesizer
from model.inference.sampler import Sampler
from tests.factories.bundle import random_bundle

FAST = {"num_flow_steps": 2}


@pytest.fixture(scope="module")
def synthesizer(tmp_path_factory: pytest.TempPathFactory) -> Synthesizer:
    return Synthesizer(random_bundle(tmp_path_factory.mktemp("bundle")))


def sound(duration_s: float = 0.5, **changes: object) -> SynthesisRequest:
    fields = {"description": "rain on a roof", "duration_s": duration_s, **changes}
    return SynthesisRequest(**fields, sampling=FAST)  # type: ignore[arg-type]


def whole(synthesizer: Synthesizer, request: SynthesisRequest) -> torch.Tensor:
    return torch.cat(list(synthesizer.stream(request)), dim=-1)


def test_chunks_concatenate_to_the_offline_decode(synthesizer: Synthesizer) -> None:
    request = sound(0.83)
    generation = synthesizer.prepare(request).generation
    blocks = list(Sampler(synthesizer.bundle.model).generate(generation))
    latents = torch.cat([block.latents[: block.num_valid_frames] for block in blocks])
    offline = synthesizer.bundle.codec.decode(latents[None])[0]
    chunks = list(synthesizer.stream(request))
    assert len(chunks) > 2
    streamed = torch.cat(chunks, dim=-1)
    # Chunked and whole convolutions sum in another order.
    torch.testing.assert_close(streamed, offline[:, : streamed.shape[-1]], atol=1e-5, rtol=1e-4)
    assert streamed.dtype == torch.float32
    assert float(streamed.std()) > 1e-4


@pytest.mark.parametrize("duration_s", [0.1, 0.16, 0.5, 0.777])
def test_a_duration_is_kept_to_the_sample(synthesizer: Synthesizer, duration_s: float) -> None:
    waveform = whole(synthesizer, sound(duration_s))
    assert waveform.shape == (1, synthesizer.timebase.samples_in(duration_s))


def test_the_bundle_says_how_its_model_is_sampled(tmp_path: Path) -> None:
    sampling = {"sound": {"num_flow_steps": 3}, "music": {"guidance_scale": 1.5}}
    told = Synthesizer(random_bundle(tmp_path, sampling=sampling))
    options = told.prepare(SynthesisRequest(description="rain")).generation.options
    assert (options.num_flow_steps, options.guidance_scale) == (3, 3.0)
    changes = {"num_flow_steps": 5, "guidance_scale": None}
    request = SynthesisRequest(description="rain", modality="music", sampling=changes)
    options = told.prepare(request).generation.options
    assert (options.num_flow_steps, options.guidance_scale) == (5, 1.5)


def test_sound_without_duration_takes_the_default(synthesizer: Synthesizer) -> None:
    prepared = synthesizer.prepare(SynthesisRequest(description="a bell"))
    assert prepared.num_samples == synthesizer.timebase.samples_in(DEFAULT_DURATION_S)
    assert prepared.generation.exact_frames == synthesizer.timebase.frames_in(DEFAULT_DURATION_S)


def test_speech_is_bounded_by_its_transcript(synthesizer: Synthesizer) -> None:
    words = SynthesisRequest(description="a man", transcript="good morning")
    prepared = synthesizer.prepare(words)
    shortest_s, longest_s = speech_bounds_s("good morning")
    generation = prepared.generation
    assert prepared.num_samples is None
    assert generation.exact_frames is None
    assert generation.min_frames == synthesizer.timebase.frames_in(shortest_s)
    assert generation.max_frames == synthesizer.timebase.frames_in(longest_s)
    assert generation.uses_expert


def test_the_cap_never_exceeds_the_limit(synthesizer: Synthesizer) -> None:
    limited = Synthesizer(synthesizer.bundle, Limits(max_duration_s=1.0))
    prepared = limited.prepare(SynthesisRequest(description="a man", transcript="a" * 4000))
    assert prepared.generation.max_frames == limited.timebase.frames_in(1.0)
    assert prepared.generation.min_frames <= prepared.generation.max_frames


def test_speech_ends_within_its_bounds(synthesizer: Synthesizer) -> None:
    request = SynthesisRequest(description="a man", transcript="one", sampling=FAST)
    generation = synthesizer.prepare(request).generation
    samples = whole(synthesizer, request).shape[-1]
    timebase = synthesizer.timebase
    assert timebase.num_samples(generation.min_frames) <= samples
    assert samples <= timebase.num_samples(generation.max_frames)


def test_same_seed_same_audio(synthesizer: Synthesizer) -> None:
    first, again = whole(synthesizer, sound(seed=7)), whole(synthesizer, sound(seed=7))
    assert torch.equal(first, again)
    assert not torch.allclose(first, whole(synthesizer, sound(seed=8)))


def test_a_batch_never_changes_a_request(synthesizer: Synthesizer) -> None:
    requests = [
        sound(0.3, seed=1),
        sound(0.7, seed=2, modality="music"),
        SynthesisRequest(description="a woman", transcript="hi", duration_s=0.5, sampling=FAST),
    ]
    together: list[list[torch.Tensor]] = [[], [], []]
    running = dict(enumerate(synthesizer.open(request) for request in requests))
    while running:
        pieces = synthesizer.step(list(running.values()))
        for row, piece in zip(list(running), pieces, strict=True):
            assert not isinstance(piece, SynthesisError)
            together[row].append(piece.waveform)
            if piece.is_last:
                del running[row]
    for request, chunks in zip(requests, together, strict=True):
        alone = whole(synthesizer, request)
        # fp32 sums in a batch differ in the last bits.
        torch.testing.assert_close(torch.cat(chunks, dim=-1), alone, atol=1e-4, rtol=1e-3)


def test_a_voice_changes_the_audio(synthesizer: Synthesizer) -> None:
    ada = synthesizer.bundle.voices["ada"]
    plain = whole(synthesizer, sound(transcript="hi"))
    voiced = whole(synthesizer, sound(transcript="hi", voice=ada))
    assert not torch.allclose(plain, voiced)


@pytest.mark.parametrize(
    ("changes", "field", "message"),
    [
        ({"description": "  "}, "description", "is empty"),
        ({"description": "a" * 2001}, "description", "has 2001 characters; at most 2000"),
        ({"description": "\ud800"}, "description", "surrogate"),
        ({"transcript": ""}, "transcript", "is empty"),
        ({"transcript": "a" * 4097}, "transcript", "at most 4096"),
        ({"language": "!!"}, "language", "no BCP 47 tag"),
        ({"duration_s": 0.0}, "duration_s", r"is 0.0; it must be in \[0.1, 120.0\]"),
        ({"duration_s": float("nan")}, "duration_s", "is nan"),
        ({"duration_s": 121.0}, "duration_s", "is 121.0"),
        ({"seed": -1}, "seed", "-1 is outside"),
        ({"modality": "video"}, "modality", "'video' is not one of speech, sound, music"),
        ({"modality": "speech"}, "transcript", "speech needs a transcript"),
        ({"is_singing": True}, "transcript", "singing needs the words"),
        ({"voice": torch.zeros(3)}, "voice", "3 values; the model takes 5"),
        ({"voice": torch.full((5,), float("nan"))}, "voice", "not finite"),
        ({"sampling": {"num_flow_steps": 300}}, "num_flow_steps", "is 300"),
        ({"sampling": {"guidance_scale": 30.0}}, "guidance_scale", "is 30"),
    ],
)
def test_what_cannot_be_made_is_refused_by_field(
    synthesizer: Synthesizer, changes: dict, field: str, message: str
) -> None:
    request = SynthesisRequest(**{"description": "rain", **changes})
    with pytest.raises(RequestError, match=message) as caught:
        synthesizer.prepare(request)
    assert caught.value.field == field


def test_a_model_without_voices_refuses_one(tmp_path: Path) -> None:
    bundle = random_bundle(tmp_path)
    bundle.model.config = dataclasses.replace(bundle.model.config, speaker_id=None)
    with pytest.raises(RequestError, match="built without voices"):
        Synthesizer(bundle).prepare(sound(voice=torch.zeros(5)))


def test_audio_that_is_not_finite_fails_its_request_only(synthesizer: Synthesizer) -> None:
    overflowing = torch.full((5,), 3e38)
    good, bad = synthesizer.open(sound()), synthesizer.open(sound(voice=overflowing))
    pieces = synthesizer.step([good, bad])
    assert not isinstance(pieces[0], SynthesisError)
    assert isinstance(pieces[1], SynthesisError)
    with pytest.raises(SynthesisError, match="not finite"):
        whole(synthesizer, sound(voice=overflowing))
