"""Requests are checked, lengths are kept, and chunks concatenate to the offline decode."""

from __future__ import annotations

import dataclasses
import unicodedata
from pathlib import Path

import pytest
import torch

from model.bundle.limits import DEFAULT_DURATION_S, Limits, RequestError
from model.bundle.preparation import prepare_part
from model.bundle.reading import part_seed, speech_bounds_s
from model.bundle.request import SpeechPrompt, SynthesisRequest
from model.bundle.synthesis import Piece, SynthesisError, Synthesizer
from model.inference.cache import CacheSize
from model.inference.generation import GenerationRequest
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


def all_parts(synthesizer: Synthesizer, request: SynthesisRequest) -> list[GenerationRequest]:
    """The parts of a text as the sampler takes them, none of which continues another."""
    bundle, limits = synthesizer.bundle, synthesizer.limits
    return [prepare_part(part, bundle, limits) for part in synthesizer.prepare(request).parts]


def test_chunks_concatenate_to_the_offline_decode(synthesizer: Synthesizer) -> None:
    request = sound(0.83)
    generation = synthesizer.prepare(request).generation
    blocks = list(Sampler(synthesizer.bundle.model).generate(generation))
    latents = torch.cat([block.latents[: block.num_valid_frames] for block in blocks])
    offline = synthesizer.bundle.codec.decode(latents[None])[0]
    chunks = list(synthesizer.stream(request))
    assert len(chunks) > 2
    streamed = torch.cat(chunks, dim=-1)
    # Chunked and whole convolutions sum in another order, and where noise and tones of random
    # latents nearly cancel, phases carry that on.
    torch.testing.assert_close(streamed, offline[:, : streamed.shape[-1]], atol=1e-3, rtol=1e-3)
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
    limited = Synthesizer(synthesizer.bundle, Limits(max_duration_s=1.0, max_speech_s=600.0))
    for generation in all_parts(
        limited, SynthesisRequest(description="a man", transcript="a" * 4000)
    ):
        assert generation.max_frames == limited.timebase.frames_in(1.0)
        assert generation.min_frames <= generation.max_frames


def test_a_long_text_is_the_audio_of_its_parts(synthesizer: Synthesizer) -> None:
    limited = Synthesizer(synthesizer.bundle, Limits(max_duration_s=3.0, max_speech_s=60.0))

    def speech(words: str, seed: int) -> SynthesisRequest:
        return SynthesisRequest(description="a man", transcript=words, seed=seed, sampling=FAST)

    text = "One two three. Four five six. Seven eight nine."
    prepared = limited.prepare(speech(text, 5))
    assert [part.seed for part in prepared.parts] == [5, part_seed(5, 1), part_seed(5, 2)]
    told = whole(limited, speech(text, 5))
    parts = [
        whole(limited, speech(words, part_seed(5, index)))
        for index, words in enumerate(("One two three.", "Four five six.", "Seven eight nine."))
    ]
    joined = torch.cat(parts, dim=-1)
    ramp = torch.linspace(0, 1, limited.timebase.samples_in(0.005))
    end = 0
    for part in parts[:-1]:
        end += part.shape[-1]
        joined[:, end - len(ramp) : end] *= ramp.flip(0)
        joined[:, end : end + len(ramp)] *= ramp
    torch.testing.assert_close(told, joined, atol=1e-6, rtol=0)
    assert told[0, end - 1] == told[0, end] == 0


def test_a_chapter_is_prepared_in_parts_that_each_fit(synthesizer: Synthesizer) -> None:
    limits = Limits(max_transcript_chars=20_000, max_speech_s=1500.0)
    chapter = "The ferry leaves at seven, and nobody waits. " * 444
    parts = all_parts(
        Synthesizer(synthesizer.bundle, limits),
        SynthesisRequest(description="a man", transcript=chapter),
    )
    assert len(parts) >= 60
    longest_frames = synthesizer.timebase.frames_in(120.0)
    assert max(part.max_frames for part in parts) <= longest_frames
    letters = sum(len(part.token_ids) for part in parts)
    assert letters > len(chapter.strip())


@pytest.fixture(scope="module")
def paced(tmp_path_factory: pytest.TempPathFactory) -> Synthesizer:
    return Synthesizer(random_bundle(tmp_path_factory.mktemp("paced"), paces_speech=True))


def test_speed_shortens_what_a_pacing_model_may_take(paced: Synthesizer) -> None:
    def bounds(speed: float) -> tuple[int, int]:
        request = SynthesisRequest(description="a man", transcript="good morning", speed=speed)
        generation = paced.prepare(request).generation
        assert generation.speed == speed
        return generation.min_frames, generation.max_frames

    shortest_s, longest_s = speech_bounds_s("good morning")
    for speed in (0.5, 1.0, 2.0):
        frames_in = paced.timebase.frames_in
        assert bounds(speed) == (frames_in(shortest_s / speed), frames_in(longest_s / speed))


def test_a_slow_reading_is_cut_into_shorter_parts(paced: Synthesizer) -> None:
    limited = Synthesizer(paced.bundle, Limits(max_speech_s=600.0))
    text = "Good morning to all of you. " * 20
    numbers = [
        len(
            limited.prepare(
                SynthesisRequest(description="a man", transcript=text, speed=speed)
            ).parts
        )
        for speed in (0.25, 1.0)
    ]
    assert numbers[0] > 2 * numbers[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"speed": 2.0, "duration_s": 1.0}, "no duration"),
        ({"speed": 2.0, "transcript": None}, "a transcript"),
    ],
)
def test_a_speed_that_nothing_can_keep_is_refused(
    paced: Synthesizer, changes: dict[str, object], message: str
) -> None:
    fields = {"description": "x", "transcript": "one", "modality": "music", **changes}
    with pytest.raises(RequestError, match=message) as caught:
        paced.prepare(SynthesisRequest(**fields))  # type: ignore[arg-type]
    assert caught.value.field == "speed"


def test_a_model_without_pace_refuses_another_speed(synthesizer: Synthesizer) -> None:
    request = SynthesisRequest(description="x", transcript="one", speed=2.0)
    with pytest.raises(RequestError, match="knows the speaking rate"):
        synthesizer.prepare(request)


def test_parts_go_on_in_a_bounded_cache_and_beside_others(synthesizer: Synthesizer) -> None:
    limits = Limits(
        max_description_chars=40, max_transcript_chars=60, max_duration_s=3.0, max_speech_s=60.0
    )
    # Two guided requests fill the cache.
    size = CacheSize(num_rows=4, num_tokens=400)
    bounded = Synthesizer(synthesizer.bundle, limits, size)
    text = "One two three. Four five six. Seven eight nine."
    request = SynthesisRequest(description="a man", transcript=text, sampling=FAST)
    long, short = bounded.open(request), bounded.open(sound(0.2))
    pieces = [piece for piece in bounded.step([long, short]) if isinstance(piece, Piece)]
    bounded.close(short)
    is_last, samples = False, pieces[0].waveform.shape[-1]
    while not is_last:
        (piece,) = bounded.step([long])
        assert isinstance(piece, Piece)
        is_last, samples = piece.is_last, samples + piece.waveform.shape[-1]
    bounded.close(long)
    shortest = sum(part.min_frames for part in all_parts(bounded, request)[1:])
    assert samples > bounded.timebase.num_samples(shortest)
    # All rows are free again.
    for utterance in [bounded.open(sound(0.2)), bounded.open(sound(0.2))]:
        bounded.close(utterance)


def test_later_parts_take_the_voice_of_the_first_where_none_is_named(
    synthesizer: Synthesizer,
) -> None:
    heard: list[torch.Tensor] = []
    voice = torch.linspace(-1, 1, 5)

    def voice_of(waveform: torch.Tensor, sample_rate: int) -> torch.Tensor:
        assert sample_rate == synthesizer.timebase.sample_rate
        heard.append(waveform)
        return voice

    limits = Limits(max_duration_s=3.0, max_speech_s=60.0)
    keeping = Synthesizer(synthesizer.bundle, limits, voice_of=voice_of)
    plain = Synthesizer(synthesizer.bundle, limits)
    request = SynthesisRequest(
        description="a man", transcript="One two three. Four five six. Seven.", sampling=FAST
    )

    def speakers(request: SynthesisRequest) -> list[torch.Tensor | None]:
        utterance = keeping.open(request)
        found, is_last = [utterance.generation.request.speaker], False
        while not is_last:
            later = utterance.later
            (piece,) = keeping.step([utterance])
            assert isinstance(piece, Piece)
            is_last = piece.is_last
            if utterance.later is not later:
                found.append(utterance.generation.request.speaker)
        return found

    first, *others = speakers(request)
    assert first is None
    assert len(others) >= 1
    for speaker in others:
        assert speaker is not None
        assert torch.equal(speaker, voice)
    # It is found once, in all of the first part but the fade at its end.
    (waveform,) = heard
    part = dataclasses.replace(request, transcript="One two three.")
    alone = whole(plain, part)
    assert waveform.shape == alone.shape
    end = alone.shape[-1] - plain.timebase.samples_in(0.005)
    torch.testing.assert_close(waveform[:, :end], alone[:, :end], atol=1e-3, rtol=1e-3)
    named = torch.ones(5)
    for speaker in speakers(dataclasses.replace(request, voice=named)):
        assert speaker is not None
        assert torch.equal(speaker, named)
    recording = prompt_of(synthesizer)
    assert not any(
        speaker is not None
        for speaker in speakers(dataclasses.replace(request, continues=recording))
    )
    speakers(part)
    assert len(heard) == 1


def test_speech_without_an_audible_voice_goes_on_by_its_description(
    synthesizer: Synthesizer,
) -> None:
    limits = Limits(max_duration_s=3.0, max_speech_s=60.0)
    text = "One two three. Four five six."
    request = SynthesisRequest(description="a man", transcript=text, sampling=FAST)
    deaf = Synthesizer(synthesizer.bundle, limits, voice_of=lambda waveform, rate: None)
    plain = Synthesizer(synthesizer.bundle, limits)
    torch.testing.assert_close(whole(deaf, request), whole(plain, request))


def test_a_part_without_room_waits_until_another_request_has_ended(
    synthesizer: Synthesizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = Limits(max_duration_s=3.0, max_speech_s=60.0)
    request = SynthesisRequest(
        description="a man", transcript="One. Two three four five.", sampling=FAST
    )
    expected = whole(Synthesizer(synthesizer.bundle, limits), request)
    fresh = Synthesizer(synthesizer.bundle, limits)
    first, _ = fresh.open(request), fresh.open(sound(0.2))
    # As much memory as both take at first: the second part, which is longer, does not fit beside.
    bound = first.generation.cache.memory.size_bytes
    tight = Synthesizer(synthesizer.bundle, limits, max_cache_bytes=bound)
    long, short = tight.open(request), tight.open(sound(0.2))
    assert long.generation.cache.memory.size_bytes == bound
    chunks = []
    while long.later:
        (piece,) = tight.step([long])
        assert isinstance(piece, Piece)
        chunks.append(piece.waveform)
    assert piece.frees_room
    with monkeypatch.context() as patch:
        patch.setattr(Sampler, "open", None)  # without more room, the part is not read again
        for _ in range(3):
            (piece,) = tight.step([long])
            assert isinstance(piece, Piece)
            assert piece.waveform.shape == (1, 0)
            assert piece.is_waiting
            assert not piece.is_last
    tight.close(short)
    while not piece.is_last:
        (piece,) = tight.step([long])
        assert isinstance(piece, Piece)
        chunks.append(piece.waveform)
    made = torch.cat(chunks, dim=-1)
    assert made.shape == expected.shape
    # Sums in another order, which phases of random latents carry on.
    assert (made - expected).square().mean() < 1e-5 * expected.square().mean()


@pytest.mark.parametrize(("threshold", "is_capped"), [(0.999999, True), (1e-6, False)])
def test_speech_that_reaches_its_cap_says_so(
    synthesizer: Synthesizer, threshold: float, is_capped: bool
) -> None:
    """A stop head that never stops, and one that always does."""
    sampling = {**FAST, "stop_threshold": threshold}
    request = SynthesisRequest(description="a man", transcript="one", sampling=sampling)
    assert [piece.is_capped for piece in synthesizer.pieces(request)][-1] == is_capped
    exact = dataclasses.replace(request, duration_s=0.5)
    assert not any(piece.is_capped for piece in synthesizer.pieces(exact))


def test_the_prompt_holds_text_in_the_form_of_training(synthesizer: Synthesizer) -> None:
    raw = unicodedata.normalize("NFD", "Café\nnaïve\u200b  résumé")
    typed = SynthesisRequest(description="A\u202e man\n", transcript=raw)
    clean = SynthesisRequest(description="A man", transcript="Café naïve résumé")
    prompts = [synthesizer.prepare(request).generation.token_ids for request in (typed, clean)]
    assert prompts[0] == prompts[1]


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
        # fp32 sums in a batch differ in the last bits, which phases of random latents carry on.
        torch.testing.assert_close(torch.cat(chunks, dim=-1), alone, atol=2e-3, rtol=1e-3)


def prompt_of(synthesizer: Synthesizer, frames: int = 10, seed: int = 0) -> SpeechPrompt:
    generator = torch.Generator().manual_seed(seed)
    width = synthesizer.bundle.model.config.latent_dim
    return SpeechPrompt("one two", torch.randn(frames, width, generator=generator))


def test_speech_continues_a_recording_with_its_words_before_its_own(
    synthesizer: Synthesizer,
) -> None:
    prompt = prompt_of(synthesizer)
    request = SynthesisRequest(description="a man", transcript="three", continues=prompt)
    generation = synthesizer.prepare(request).generation
    text = synthesizer.bundle.tokenizer.decode(list(generation.token_ids))
    assert text.endswith("Says: one two three")
    assert generation.prompt_latents is not None
    assert torch.equal(generation.prompt_latents, prompt.latents[2:])  # whole blocks of four
    # Length and stop are those of the new words.
    alone = SynthesisRequest(description="a man", transcript="three")
    assert generation.max_frames == synthesizer.prepare(alone).generation.max_frames
    timed = dataclasses.replace(request, duration_s=0.5, sampling=FAST)
    waveform = whole(synthesizer, timed)
    assert waveform.shape[-1] == synthesizer.timebase.samples_in(0.5)
    other = dataclasses.replace(timed, continues=prompt_of(synthesizer, seed=1))
    assert not torch.allclose(waveform, whole(synthesizer, other))


def test_the_recording_sets_the_pace_at_which_its_speech_continues(tmp_path: Path) -> None:
    paced = Synthesizer(random_bundle(tmp_path, paces_speech=True))
    request = SynthesisRequest(
        description="a man", transcript="three", continues=prompt_of(paced, frames=14)
    )
    generation = paced.prepare(request).generation
    assert generation.num_words == len("one two three")
    assert generation.num_prompt_words == len("one two")
    # A speed is that of the new words; the recording stands where it stood.
    plain, fast = (
        paced.open(dataclasses.replace(request, speed=speed)).generation.positions[0].ends
        for speed in (1.0, 2.0)
    )
    assert fast[6] == plain[6] == pytest.approx(12)
    assert fast[-1] - 12 == pytest.approx((plain[-1] - 12) / 2)


@pytest.mark.parametrize(
    ("frames", "changes", "message"),
    [
        (10, {"transcript": None, "duration_s": 1.0}, "only speech continues"),
        (10, {"modality": "music", "duration_s": 1.0}, "only speech continues"),
        (10, {"is_singing": True}, "only speech continues"),
        (3, {}, "has 3 latent frames; at least 4"),
    ],
)
def test_what_cannot_be_continued_is_refused(
    synthesizer: Synthesizer, frames: int, changes: dict, message: str
) -> None:
    prompt = prompt_of(synthesizer, frames)
    fields = {"description": "a man", "transcript": "three", "continues": prompt, **changes}
    with pytest.raises(RequestError, match=message) as caught:
        synthesizer.prepare(SynthesisRequest(**fields))
    assert caught.value.field == "continue"


def test_a_prompt_of_another_codec_is_refused(synthesizer: Synthesizer) -> None:
    for latents, message in (
        (torch.zeros(8, 3), "latents of width 3"),
        (torch.full_like(prompt_of(synthesizer).latents, torch.nan), "not finite"),
    ):
        prompt = SpeechPrompt("one", latents)
        request = SynthesisRequest(description="a man", transcript="two", continues=prompt)
        with pytest.raises(RequestError, match=message):
            synthesizer.prepare(request)


def test_a_voice_changes_the_audio(synthesizer: Synthesizer) -> None:
    ada = synthesizer.bundle.voices["ada"].embedding
    plain = whole(synthesizer, sound(transcript="hi"))
    voiced = whole(synthesizer, sound(transcript="hi", voice=ada))
    assert not torch.allclose(plain, voiced)


@pytest.mark.parametrize(
    ("changes", "field", "message"),
    [
        ({"description": "  "}, "description", "is empty"),
        ({"voice": torch.zeros(3)}, "voice", "3 values; the model takes 5"),
        ({"voice": torch.full((5,), float("nan"))}, "voice", "not finite"),
        ({"sampling": {"temperature": 5.0}}, "temperature", "is 5.0"),
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
