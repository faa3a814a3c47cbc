"""How many passes of the backbone a block costs."""

from __future__ import annotations

import dataclasses

import torch

from model.inference.generation import GenerationRequest, SamplingOptions
from model.inference.sampler import Sampler
from tests.factories.model import (
    AUDIO_ID,
    LOCAL_HEAD,
    NULL_ID,
    SPEAKER_ID,
    random_model,
    tiny_config,
)


def request(seed: int = 0, exact_frames: int | None = 16) -> GenerationRequest:
    return GenerationRequest(
        token_ids=(3, 1, 4, 1, 5, AUDIO_ID),
        null_ids=(NULL_ID, AUDIO_ID),
        uses_expert=False,
        seed=seed,
        max_frames=16,
        exact_frames=exact_frames,
        options=SamplingOptions(num_flow_steps=3),
    )


def run(sampler: Sampler, asked: GenerationRequest) -> None:
    assert sum(block.num_valid_frames for block in sampler.generate(asked)) == 16


def test_requests_of_different_steps_and_guidance_share_their_passes() -> None:
    model = random_model(tiny_config())
    sampler = Sampler(model)
    rows: list[int] = []
    model.backbone.register_forward_hook(lambda _, given, __: rows.append(given[0].shape[0]))
    options = (
        SamplingOptions(num_flow_steps=2, guidance_scale=1.0),
        SamplingOptions(num_flow_steps=5),
        SamplingOptions(num_flow_steps=4, guidance_scale=3.0),
    )
    states = [sampler.open(dataclasses.replace(request(), options=o)) for o in options]
    rows.clear()
    sampler.step(states)
    assert rows == [5, 5, 4, 4, 2]


def test_requests_of_different_age_share_their_passes() -> None:
    model = random_model(tiny_config())
    sampler = Sampler(model)
    calls = []
    model.backbone.register_forward_hook(lambda *_: calls.append(1))
    # Of different age: the fused write of one must not cost the other a pass.
    states = [sampler.open(request(1))]
    sampler.step(states)
    states.append(sampler.open(dataclasses.replace(request(2), uses_expert=True)))
    calls.clear()
    sampler.step(states)
    assert len(calls) == 3


def test_paced_speech_costs_no_pass_for_a_stop_decision() -> None:
    model = random_model(tiny_config(paces_speech=True))
    sampler = Sampler(model)
    calls = []
    model.backbone.register_forward_hook(lambda *_: calls.append(1))
    paced = dataclasses.replace(request(exact_frames=None), num_words=2, min_frames=12)
    states = [sampler.open(paced), sampler.open(request(1))]
    calls.clear()
    num_steps = 0
    while states:
        sampler.step(states)
        states = [state for state in states if not state.is_done]
        num_steps += 1
    assert num_steps >= 3
    assert len(calls) == 3 * num_steps


def test_a_wait_for_the_stop_decision_costs_one_pass_a_block() -> None:
    model = random_model(tiny_config())
    torch.nn.init.constant_(model.stop_head.output_proj.bias, -50.0)
    sampler = Sampler(model)
    # The null prefix is read once for all requests.
    sampler.open(request())
    calls = []
    model.backbone.register_forward_hook(lambda *_: calls.append(1))
    for asked, expected in ((request(), 1 + 4 * 3), (request(exact_frames=None), 1 + 4 * (3 + 1))):
        calls.clear()
        run(sampler, asked)
        assert len(calls) == expected


def test_under_the_local_head_the_backbone_runs_once_a_block_and_for_the_stop_decision() -> None:
    model = random_model(tiny_config(head=LOCAL_HEAD))
    torch.nn.init.constant_(model.stop_head.output_proj.bias, -50.0)
    sampler = Sampler(model)
    sampler.open(request())
    calls: list[int] = []
    model.backbone.register_forward_hook(lambda _, given, __: calls.append(given[0].shape[1]))
    # Blank frames and, but for the first, the clean block before; written apart where the stop
    # decision reads it.
    for asked, blocks in ((request(), [4, 8, 8, 8]), (request(exact_frames=None), 4 * [4, 4])):
        calls.clear()
        run(sampler, asked)
        assert calls == [len(asked.token_ids), *blocks]


def test_a_description_is_read_once_for_all_requests_in_its_voice() -> None:
    model = random_model(tiny_config(paces_speech=True))
    sampler = Sampler(model)
    calls: list[int] = []
    model.backbone.register_forward_hook(lambda _, given, __: calls.append(given[0].shape[1]))
    paced = dataclasses.replace(request(exact_frames=None), num_words=2)
    voiced = dataclasses.replace(
        paced, token_ids=(SPEAKER_ID, *paced.token_ids), speaker=torch.ones(5)
    )
    for asked, expected in (
        (paced, [3, 3, 2]),  # the description, words and start of audio, the null prefix
        (dataclasses.replace(paced, seed=1, token_ids=(3, 1, 4, 9, 9, AUDIO_ID)), [3]),
        (voiced, [4, 3]),
        (dataclasses.replace(voiced, speaker=-torch.ones(5)), [4, 3]),
        (dataclasses.replace(voiced, seed=2), [3]),
        (dataclasses.replace(paced, uses_expert=True), [3, 3, 2]),
        # A prompt is read after the prefix, which is not read again; the null row has it as well.
        (dataclasses.replace(paced, prompt_latents=torch.zeros(8, 6)), [3, 8, 10]),
        # Without a transcript nothing precedes it.
        (request(), [6]),
    ):
        calls.clear()
        sampler.open(asked)
        assert calls == expected
