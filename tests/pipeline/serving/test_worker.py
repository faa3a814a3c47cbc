"""A bundle behind the worker interface: voices, refusals, and bundles on an object store."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch

from model.bundle.bundle import BundleError, load_bundle
from model.bundle.request import SynthesisRequest
from model.bundle.synthesis import Synthesizer
from model.inference.generation import BlockOutput, GenerationState
from model.inference.sampler import Sampler
from pipeline.continuation import spoken_recording
from pipeline.serving.answer import BusyError, RefusedError, Step
from pipeline.serving.formats import AudioLayout, pcm_bytes
from pipeline.serving.schemas import AudioJob
from pipeline.serving.settings import (
    AutoscaleSettings,
    BatchSettings,
    LimitSettings,
    ServeSettings,
)
from pipeline.serving.worker import BundleWorker, Spoken, load_worker, local_copy
from tests.factories.bundle import write_bundle

FAST = {"num_flow_steps": 2}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def worker(bundle: Path) -> BundleWorker:
    settings = ServeSettings(bundle=str(bundle), limits=LimitSettings(max_duration_s=2.0))
    return load_worker(settings, {"eve": [0.5] * 5}, has_gpu=False)


def pcm(worker: BundleWorker, job: AudioJob) -> bytes:
    handle, samples, is_last = worker.open(job), b"", False
    while not is_last:
        (step,) = worker.step([handle])
        assert step.failure is None
        samples, is_last = samples + step.samples, step.is_last
    return samples


def test_a_job_is_what_the_synthesizer_makes(worker: BundleWorker, bundle: Path) -> None:
    job = AudioJob(description="rain", duration_s=0.5, seed=2, sampling=FAST)
    request = SynthesisRequest(description="rain", duration_s=0.5, seed=2, sampling=FAST)
    chunks = list(Synthesizer(load_bundle(bundle)).stream(request))
    assert pcm(worker, job) == pcm_bytes(torch.cat(chunks, dim=-1).numpy())


@pytest.mark.parametrize("has_few_shapes", [False, True])
def test_a_bounded_cache_makes_the_same_audio_and_refuses_what_is_too_long(
    worker: BundleWorker, bundle: Path, has_few_shapes: bool
) -> None:
    batch = BatchSettings(max_batch=2, row_tokens=200, cuda_graphs=has_few_shapes)
    autoscale = AutoscaleSettings(target_ongoing_requests=1.0)
    settings = ServeSettings(bundle=str(bundle), batch=batch, autoscale=autoscale)
    bounded = load_worker(settings, {}, has_gpu=False)
    job = AudioJob(description="rain", duration_s=0.5, seed=2, sampling=FAST)
    # More requests than rows: each gives its own back.
    for _ in range(5):
        given, expected = (np.frombuffer(pcm(w, job), np.int16) for w in (bounded, worker))
        # Sums in another order, which phases of random latents carry on.
        np.testing.assert_allclose(given.astype(int), expected.astype(int), atol=100)
    for field, changes in (
        ("description", {"description": "\U0001f40b" * 100}),
        ("transcript", {"transcript": "\u6c34" * 100}),
        ("duration_s", {"duration_s": 60.0}),
    ):
        with pytest.raises(RefusedError, match="tokens of cache") as caught:
            bounded.open(dataclasses.replace(job, **changes))
        assert caught.value.param == field


def test_a_request_waits_for_memory_and_one_that_never_fits_is_refused(bundle: Path) -> None:
    limits = LimitSettings(max_duration_s=600.0)
    settings = ServeSettings(
        bundle=str(bundle), limits=limits, batch=BatchSettings(cache_bytes=2**20)
    )
    bounded = load_worker(settings, {}, has_gpu=False)
    job = AudioJob(description="rain", duration_s=5.0, seed=2, sampling=FAST)
    held: list[Spoken] = []

    def fill() -> None:
        while len(held) < 100:
            held.append(bounded.open(job))

    with pytest.raises(BusyError, match="close a request first"):
        fill()
    # 2 layers, 2 heads of width 8, in fp32; about 150 tokens in two rows.
    assert 4 <= len(held) <= 2**20 // (2 * 2 * 2 * 8 * 4 * 2 * 125)
    bounded.close(held.pop(0))
    held.append(bounded.open(job))
    for handle in held:
        bounded.close(handle)
    with pytest.raises(RefusedError, match="the whole cache has 1048576") as caught:
        bounded.open(dataclasses.replace(job, duration_s=600.0))
    assert caught.value.param == "duration_s"
    assert len(pcm(bounded, job)) == 2 * 16_000 * 5


def test_a_bound_suits_caches_that_grow() -> None:
    with pytest.raises(ValueError, match="cache_bytes is for caches that grow"):
        BatchSettings(row_tokens=200, cache_bytes=2**30)


def test_captured_passes_need_a_bound() -> None:
    with pytest.raises(ValueError, match="cuda_graphs needs row_tokens"):
        BatchSettings(cuda_graphs=True)


def test_voices_of_bundle_and_folder_and_body(worker: BundleWorker) -> None:
    service = worker.service()
    assert service.voices == {"ada": "A woman speaks.", "eve": ""}
    assert service.layout == worker.layout == AudioLayout(16_000, 1)
    fields = {"description": "x", "transcript": "hi", "duration_s": 0.3, "sampling": FAST}
    named = pcm(worker, AudioJob(**fields, voice="eve"))
    assert named == pcm(worker, AudioJob(**fields, voice_embedding=(0.5,) * 5))
    assert named != pcm(worker, AudioJob(**fields, voice="ada"))
    assert named != pcm(worker, AudioJob(**fields))


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"voice": "zoe"}, "voice"),
        ({"voice_embedding": (1.0, 2.0)}, "voice"),
        ({"duration_s": 3.0}, "duration_s"),
        ({"sampling": {"num_flow_steps": 65}}, "num_flow_steps"),
        ({"sampling": {"guidance_scale": -1.0}}, "guidance_scale"),
        ({"modality": "speech"}, "transcript"),
        ({"description": "\ud800"}, "description"),
    ],
)
def test_a_refusal_names_the_field(worker: BundleWorker, changes: dict, param: str) -> None:
    with pytest.raises(RefusedError) as caught:
        worker.open(AudioJob(**{"description": "rain", **changes}))
    assert caught.value.param == param


def test_a_default_duration_stays_within_the_limit(worker: BundleWorker) -> None:
    samples = pcm(worker, AudioJob(description="rain", sampling=FAST))
    assert len(samples) == 2 * 16_000 * 2


def test_audio_that_is_not_finite_is_a_failure(worker: BundleWorker) -> None:
    job = AudioJob(description="x", voice_embedding=(3e38,) * 5, sampling=FAST)
    (step,) = worker.step([worker.open(job)])
    assert step.failure is not None
    assert "not finite" in step.failure
    assert step.samples == b""


def test_a_voice_of_another_width_is_refused(bundle: Path) -> None:
    with pytest.raises(BundleError, match="voice 'eve' has shape"):
        load_worker(ServeSettings(bundle=str(bundle)), {"eve": [1.0]}, has_gpu=False)


def test_a_bundle_on_an_object_store_is_copied(bundle: Path, tmp_path: Path) -> None:
    store = fsspec.filesystem("memory")
    store.put(str(bundle), "/models/x", recursive=True)
    copy = local_copy("memory://models/x", tmp_path)
    assert copy == tmp_path
    assert load_bundle(copy).digest == load_bundle(bundle).digest
    assert local_copy(str(bundle), tmp_path / "unused") == bundle


def test_what_a_request_cost_stands_in_its_last_step(worker: BundleWorker) -> None:
    handle = worker.open(AudioJob(description="rain", duration_s=0.5, sampling=FAST))
    steps: list[Step] = []
    while not (steps and steps[-1].is_last):
        steps += worker.step([handle])
    assert [step.usage for step in steps[:-1]] == [None] * (len(steps) - 1)
    usage = steps[-1].usage
    assert usage is not None
    # The tiny codec makes 25 frames a second.
    assert usage.output_tokens == 13
    assert usage.input_tokens > len("rain")


def test_speed_is_left_to_the_reader_where_the_model_does_not_pace_speech(
    worker: BundleWorker, tmp_path: Path
) -> None:
    job = AudioJob(description="x", transcript="hi there", speed=2.0, sampling=FAST)
    assert worker.opening(job).tempo == 2.0
    assert worker.open(job).utterance.generation.request.speed == 1.0
    settings = ServeSettings(bundle=str(write_bundle(tmp_path, paces_speech=True)))
    paced = load_worker(settings, {}, has_gpu=False)
    assert paced.opening(job).tempo == 1.0
    assert paced.open(job).utterance.generation.request.speed == 2.0
    with pytest.raises(RefusedError, match="no duration") as caught:
        paced.open(dataclasses.replace(job, duration_s=1.0))
    assert caught.value.param == "speed"


def test_a_default_description_gives_way_to_that_of_the_voice(worker: BundleWorker) -> None:
    fields = {"transcript": "hi", "duration_s": 0.3, "sampling": FAST, "voice": "alloy"}
    own = pcm(worker, AudioJob(**fields, description="A woman speaks."))
    assert pcm(worker, AudioJob(**fields, description="x", is_described=False)) == own
    assert pcm(worker, AudioJob(**fields, description="x")) != own
    # A voice without a description leaves the default.
    fields["voice"] = "eve"
    plain = pcm(worker, AudioJob(**fields, description="x"))
    assert pcm(worker, AudioJob(**fields, description="x", is_described=False)) == plain


def test_words_alone_are_spoken_in_the_default_voice_of_the_bundle(tmp_path: Path) -> None:
    given = write_bundle(tmp_path, default_voice="ada")
    worker = load_worker(ServeSettings(bundle=str(given)), {}, has_gpu=False)
    assert worker.service().default_voice == "ada"
    fields = {"transcript": "hi", "duration_s": 0.3, "sampling": FAST}
    words = AudioJob(**fields, description="x", is_described=False)
    named = AudioJob(**fields, description="A woman speaks.", voice="ada")
    assert pcm(worker, words) == pcm(worker, named)
    described = AudioJob(**fields, description="A woman speaks.")
    assert pcm(worker, described) != pcm(worker, named)
    uploaded = dataclasses.replace(words, voice_embedding=(0.5,) * 5)
    assert pcm(worker, uploaded) == pcm(worker, dataclasses.replace(uploaded, is_described=True))


def test_a_job_continues_its_recording_and_is_refused_what_is_no_speech(
    worker: BundleWorker,
) -> None:
    time_s = np.arange(round(1.2 * 8000)) / 8000
    hum = (0.3 * np.sin(2 * np.pi * 150 * time_s))[None].astype(np.float32)
    job = AudioJob(
        description="x",
        transcript="three",
        duration_s=0.3,
        continues=spoken_recording(hum, 8000, "one two"),
        sampling=FAST,
    )
    made = pcm(worker, job)
    assert len(made) == 2 * round(0.3 * 16_000)
    assert made != pcm(worker, dataclasses.replace(job, continues=None))
    with pytest.raises(RefusedError, match="only speech continues") as caught:
        worker.open(dataclasses.replace(job, transcript=None))
    assert caught.value.param == "continue"


def test_a_seed_gives_the_same_audio_alone_in_company_and_after_others_left(
    worker: BundleWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = AudioJob(description="a man", transcript="hello", duration_s=0.8, seed=5, sampling=FAST)
    blocks: list[torch.Tensor] = []
    step_all = Sampler.step

    def noted(sampler: Sampler, states: Sequence[GenerationState]) -> list[BlockOutput]:
        made = step_all(sampler, states)
        blocks.extend(
            block.latents
            for state, block in zip(states, made, strict=True)
            if state.request.seed == job.seed
        )
        return made

    def latents() -> torch.Tensor:
        """Those of the job since the last call."""
        whole = torch.cat(blocks)
        blocks.clear()
        return whole

    monkeypatch.setattr(Sampler, "step", noted)
    alone = np.frombuffer(pcm(worker, job), np.int16).astype(int)
    latents_alone = latents()
    others = [
        AudioJob(description="rain", duration_s=1.0 + 0.1 * seed, seed=seed, sampling=FAST)
        for seed in range(4)
    ]
    others += [
        AudioJob(description="a waltz", modality="music", duration_s=1.5, sampling=FAST),
        AudioJob(description="a woman", transcript="one", voice="ada", sampling=FAST),
        AudioJob(description="x", duration_s=1.2, sampling={"num_flow_steps": 3}),
        AudioJob(description="y", duration_s=1.2, sampling=FAST | {"guidance_scale": 1.0}),
    ]

    def among(handles: list[Spoken]) -> np.ndarray:
        """The job from now on, beside those that run."""
        mine, samples = worker.open(job), b""
        while True:
            step, *rest = worker.step([mine, *handles])
            samples += step.samples
            handles = [one for one, made in zip(handles, rest, strict=True) if not made.is_last]
            if step.is_last:
                break
        for handle in handles:
            worker.close(handle)
        return np.frombuffer(samples, np.int16).astype(int)

    running = [worker.open(other) for other in others]
    worker.step(running)
    in_company = among(running)
    torch.testing.assert_close(latents(), latents_alone, atol=1e-4, rtol=0)
    running = [worker.open(other) for other in others]
    worker.step(running)
    for handle in running[::2]:
        worker.close(handle)
    after_others_left = among(running[1::2])
    torch.testing.assert_close(latents(), latents_alone, atol=1e-4, rtol=0)
    # Sums in another order: the phases of the codec carry on their last bits.
    np.testing.assert_allclose(in_company, alone, atol=100)
    np.testing.assert_allclose(after_others_left, alone, atol=100)


def test_names_of_openai_are_voices_of_the_bundle(worker: BundleWorker) -> None:
    assert worker.service().aliases["alloy"] == "ada"
    fields = {"description": "x", "transcript": "hi", "duration_s": 0.3, "sampling": FAST}
    assert pcm(worker, AudioJob(**fields, voice="alloy")) == pcm(
        worker, AudioJob(**fields, voice="ada")
    )
