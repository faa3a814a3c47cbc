"""The sampler gives what the training forward defines, whatever else is in the batch."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from model.audiocalm import AudioCALM
from model.config import ModelConfig
from model.fast.choice import fast_backbone
from model.inference.cache import CacheFullError, CacheSize, CacheSizeError, KVCache
from model.inference.generation import GenerationRequest, SamplingOptions
from model.inference.sampler import Sampler
from model.sequence import AudioPositions
from tests.factories.model import (
    AUDIO_ID,
    LOCAL_HEAD,
    NULL_ID,
    SPEAKER_ID,
    random_model,
    tiny_config,
)
from tests.factories.rollout import packed_durations, packed_rollout, stop_probabilities

TOLERANCE = 1e-4
"""float32: the sampler adds the same numbers in another order, through several blocks."""


def request(seed: int = 0, **changes: Any) -> GenerationRequest:
    fields: dict[str, Any] = {
        "token_ids": (3, 1, 4, 1, 5, AUDIO_ID),
        "null_ids": (NULL_ID, AUDIO_ID),
        "uses_expert": False,
        "seed": seed,
        "max_frames": 16,
        "exact_frames": 16,
        "options": SamplingOptions(num_flow_steps=3),
    }
    return GenerationRequest(**{**fields, **changes})


def voiced(seed: int = 0, **changes: Any) -> GenerationRequest:
    generator = torch.Generator().manual_seed(99)
    fields: dict[str, Any] = {
        "token_ids": (SPEAKER_ID, 7, 8, 9, AUDIO_ID),
        "uses_expert": True,
        "speaker": torch.randn(5, generator=generator),
    }
    return request(seed, **{**fields, **changes})


def durations_of(sampler: Sampler, asked: GenerationRequest) -> tuple[float, ...]:
    ends = sampler.open(asked).positions[0].ends
    return tuple(end - begin for begin, end in itertools.pairwise((0.0, *ends)))


def latents_of(sampler: Sampler, asked: GenerationRequest) -> Tensor:
    blocks = list(sampler.generate(asked))
    assert [block.is_last for block in blocks] == [False] * (len(blocks) - 1) + [True]
    return torch.cat([block.latents[: block.num_valid_frames] for block in blocks])


CASES: dict[str, tuple[dict[str, Any], GenerationRequest]] = {
    "sound": ({}, request()),
    "speech with a voice": ({}, voiced()),
    "voice dropped from the null row": ({}, voiced(null_ids=(NULL_ID, AUDIO_ID))),
    "null prefix longer than the prompt": ({}, request(null_ids=tuple(range(9)))),
    "one frame a block": ({"frames_per_block": 1}, request(exact_frames=5)),
    "eight frames a block": ({"frames_per_block": 8}, request(exact_frames=16)),
    "temperature": (
        {},
        voiced(options=SamplingOptions(num_flow_steps=4, temperature=0.3)),
    ),
    "no guidance": ({}, request(options=SamplingOptions(num_flow_steps=2, guidance_scale=1.0))),
    "continuation": ({}, voiced(prompt_latents=torch.linspace(-1, 1, 48).reshape(8, 6))),
    "positions in beats": ({}, request(position_rate=1.7)),
    "audio along the words": (
        {"paces_speech": True},
        voiced(num_words=2),
    ),
    "continuation along the words": (
        {"paces_speech": True},
        voiced(
            num_words=3,
            num_prompt_words=2,
            prompt_latents=torch.linspace(-1, 1, 48).reshape(8, 6),
        ),
    ),
}


def prepared_model(config: ModelConfig) -> AudioCALM:
    model = random_model(config)
    model.set_latent_stats(torch.linspace(-1, 1, 6), torch.linspace(0.5, 2, 6))
    return model


HEADS = {"thin": tiny_config().head, "local": LOCAL_HEAD}


@pytest.mark.parametrize("waits_for_stop", [False, True], ids=["fused", "unfused"])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("name", CASES)
def test_sampling_equals_a_rollout_of_the_training_forward(
    name: str, head: str, waits_for_stop: bool
) -> None:
    changes, asked = CASES[name]
    model = prepared_model(tiny_config(head=HEADS[head], **changes))
    num_frames = asked.exact_frames
    assert num_frames is not None
    if waits_for_stop and not model.config.paces_speech:
        options = dataclasses.replace(asked.options, stop_threshold=1 - 1e-9)
        asked = dataclasses.replace(
            asked, exact_frames=None, max_frames=num_frames, options=options
        )
    given = latents_of(Sampler(model, fast_backbone(model.backbone)), asked)
    assert given.std() > 0.5
    durations = durations_of(Sampler(model), asked)
    expected = packed_rollout(model, asked, num_frames, durations)
    torch.testing.assert_close(given, expected, atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.parametrize("head", HEADS)
def test_it_stops_at_the_first_frame_that_the_training_forward_calls_last(head: str) -> None:
    model = prepared_model(tiny_config(head=HEADS[head]))
    sampler = Sampler(model)
    free = voiced(exact_frames=16)
    probability = stop_probabilities(model, free, latents_of(sampler, free))
    # Thresholds between neighbours in size, so that rounding cannot move the first crossing.
    ordered = probability.sort().values
    ends = set()
    for low, high in itertools.pairwise(ordered[1:]):
        threshold = float((low + high) / 2)
        options = dataclasses.replace(free.options, stop_threshold=threshold)
        asked = dataclasses.replace(free, exact_frames=None, options=options)
        expected = int((probability > threshold).nonzero()[0]) + 1
        assert len(latents_of(sampler, asked)) == expected
        ends.add(expected)
    assert len(ends) > 1


def test_min_frames_keeps_it_from_stopping_and_max_frames_ends_it() -> None:
    model = prepared_model(tiny_config())
    torch.nn.init.constant_(model.stop_head.output_proj.bias, 50.0)
    sampler = Sampler(model)
    eager = request(exact_frames=None, max_frames=11)
    assert len(latents_of(sampler, eager)) == 1
    for min_frames in (3, 4, 5, 11):
        asked = dataclasses.replace(eager, min_frames=min_frames)
        assert len(latents_of(sampler, asked)) == min_frames
    torch.nn.init.constant_(model.stop_head.output_proj.bias, -50.0)
    for max_frames in (1, 4, 7, 11):
        asked = dataclasses.replace(eager, max_frames=max_frames)
        assert len(latents_of(sampler, asked)) == max_frames


@pytest.mark.parametrize("exact_frames", [1, 4, 6])
def test_exact_frames_are_exact_whatever_the_stop_head_says(exact_frames: int) -> None:
    model = prepared_model(tiny_config())
    torch.nn.init.constant_(model.stop_head.output_proj.bias, 50.0)
    asked = request(exact_frames=exact_frames, min_frames=1, max_frames=3)
    assert len(latents_of(Sampler(model), asked)) == exact_frames


MIXED = [
    request(1, exact_frames=6),
    voiced(2, exact_frames=14),
    request(3, options=SamplingOptions(num_flow_steps=2, temperature=0.5)),
    request(4, options=SamplingOptions(num_flow_steps=3, guidance_scale=1.0)),
    voiced(5, exact_frames=None, options=SamplingOptions(num_flow_steps=3, stop_threshold=0.6)),
    request(6, token_ids=(AUDIO_ID,), prompt_latents=torch.linspace(-1, 1, 90).reshape(15, 6)),
    request(7, options=SamplingOptions(num_flow_steps=3)),
    voiced(8, options=SamplingOptions(num_flow_steps=1, guidance_scale=4.0)),
]


@pytest.mark.parametrize("head", HEADS)
def test_latents_do_not_depend_on_batch_mates(head: str) -> None:
    sampler = Sampler(prepared_model(tiny_config(head=HEADS[head])))
    alone = [latents_of(sampler, asked) for asked in MIXED]

    parts: dict[int, list[Tensor]] = {index: [] for index in range(len(MIXED))}
    waiting = list(enumerate(MIXED))
    running: dict[int, Any] = {}
    while waiting or running:
        # A new request joins every step, so that all are at different blocks.
        if waiting:
            index, asked = waiting.pop(0)
            running[index] = sampler.open(asked)
        order = sorted(running, reverse=True)
        for index, block in zip(order, sampler.step([running[i] for i in order]), strict=True):
            parts[index].append(block.latents[: block.num_valid_frames])
            if block.is_last:
                del running[index]
    for index, expected in enumerate(alone):
        torch.testing.assert_close(
            torch.cat(parts[index]), expected, atol=TOLERANCE, rtol=TOLERANCE
        )


def test_latents_do_not_depend_on_eight_others_of_which_half_are_cancelled() -> None:
    sampler = Sampler(prepared_model(tiny_config()))
    asked = voiced(9, exact_frames=14)
    alone = latents_of(sampler, asked)
    others = [sampler.open(other) for other in MIXED]
    mine, parts = sampler.open(asked), []
    for index in range(100):
        if index == 2:
            for other in others[::2]:
                sampler.close(other)
        running = [other for other in others if not other.is_done]
        *_, block = sampler.step([*running, mine])
        parts.append(block.latents[: block.num_valid_frames])
        if block.is_last:
            break
    assert mine.is_done
    torch.testing.assert_close(torch.cat(parts), alone, atol=TOLERANCE, rtol=TOLERANCE)


def test_the_seed_decides() -> None:
    sampler = Sampler(prepared_model(tiny_config()))
    first, again, other = (latents_of(sampler, request(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert (first - other).abs().max() > 0.1


def test_the_expert_is_not_read_for_a_request_that_does_not_use_it() -> None:
    model = prepared_model(tiny_config())
    for layer in model.backbone.layers:
        torch.nn.init.constant_(layer.expert.down_proj.weight, torch.nan)
    sampler = Sampler(model)
    plain = latents_of(sampler, request())
    assert plain.isfinite().all()
    assert latents_of(sampler, request(uses_expert=True)).isnan().all()
    without = tiny_config(expert=dataclasses.replace(model.config.expert, placement="none"))
    base = random_model(without)
    base.load_state_dict(
        {name: value for name, value in model.state_dict().items() if ".expert." not in name}
    )
    assert torch.equal(plain, latents_of(Sampler(base), request()))


def test_the_state_holds_float32_statistics_when_the_model_is_bfloat16() -> None:
    model = prepared_model(tiny_config()).to(torch.bfloat16)
    blocks = list(Sampler(model).generate(request(exact_frames=8)))
    assert all(block.latents.dtype == torch.float32 for block in blocks)
    assert model.latent_mean.dtype == torch.float32
    assert torch.equal(model.latent_std, torch.linspace(0.5, 2, 6))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"token_ids": ()}, "token_ids is empty"),
        ({"null_ids": ()}, "null_ids is empty"),
        ({"min_frames": 0}, "min_frames 0"),
        ({"min_frames": 17}, "min_frames 17 and max_frames 16"),
        ({"exact_frames": 0}, "exact_frames is 0"),
        ({"token_ids": (50,)}, "vocabulary has 50"),
        ({"token_ids": (SPEAKER_ID, 1)}, "no voice embedding"),
        ({"speaker": torch.zeros(5)}, "needs the speaker token"),
        ({"token_ids": (SPEAKER_ID,), "speaker": torch.zeros(4)}, "4 wide and the model takes 5"),
        ({"num_words": 99}, "num_words is 99"),
        ({"num_words": -1}, "num_words is -1"),
        ({"num_words": 1, "num_prompt_words": 2}, "num_prompt_words is 2 of 1"),
    ],
)
def test_a_bad_request_is_refused(changes: dict[str, Any], message: str) -> None:
    sampler = Sampler(random_model())
    with pytest.raises(ValueError, match=message):
        sampler.open(request(**changes))


def bounded(model: AudioCALM, num_rows: int, num_tokens: int) -> Sampler:
    size = CacheSize(num_rows=num_rows, num_tokens=num_tokens)
    return Sampler(model, cache=KVCache(model.config, model.device, model.dtype, size))


def test_rows_are_given_back_by_the_last_block_and_by_closing() -> None:
    sampler = bounded(random_model(), num_rows=4, num_tokens=40)
    first, second = sampler.open(request(1, exact_frames=4)), sampler.open(request(2))
    with pytest.raises(CacheFullError, match="all 4 rows"):
        sampler.open(request(3))
    sampler.step([first, second])
    assert first.is_done
    third = sampler.open(request(3))
    for _ in range(2):
        sampler.close(second)
    sampler.open(request(4))
    with pytest.raises(ValueError, match="finished"):
        sampler.step([second, third])


def test_what_does_not_fit_a_row_is_refused_and_takes_none() -> None:
    sampler = bounded(random_model(), num_rows=2, num_tokens=30)
    for changes in ({"exact_frames": 20}, {"token_ids": (3,) * 15}, {"max_frames": 17}):
        asked = request(**{"exact_frames": None, **changes})
        with pytest.raises(CacheSizeError, match="a row holds 30"):
            sampler.open(asked)
    assert len(latents_of(sampler, request())) == 16


def test_a_request_that_broke_down_leaves_nothing_to_the_next() -> None:
    model = prepared_model(tiny_config())
    sampler = bounded(model, num_rows=4, num_tokens=40)
    broken, beside = sampler.open(request(1)), sampler.open(request(2))
    sampler.step([broken, beside])
    broken.pending = torch.full_like(broken.pending, torch.nan)
    sampler.step([broken, beside])
    sampler.close(broken)
    state = sampler.open(request(3, exact_frames=4))
    block, _ = sampler.step([state, beside])
    expected = latents_of(Sampler(model), request(3, exact_frames=4))
    torch.testing.assert_close(block.latents, expected, atol=TOLERANCE, rtol=TOLERANCE)


def test_a_finished_or_doubled_request_cannot_step() -> None:
    sampler = Sampler(random_model())
    state = sampler.open(request(exact_frames=4))
    with pytest.raises(ValueError, match="twice"):
        sampler.step([state, state])
    sampler.step([state])
    with pytest.raises(ValueError, match="finished"):
        sampler.step([state])


def test_durations_are_those_of_the_training_forward_and_end_the_speech() -> None:
    model = prepared_model(tiny_config(paces_speech=True))
    torch.nn.init.constant_(model.duration_head.output_proj.bias, 1.5)
    asked = voiced(num_words=2, exact_frames=None, max_frames=40)
    state = Sampler(model).open(asked)
    durations = durations_of(Sampler(model), asked)
    assert durations == pytest.approx(packed_durations(model, asked), rel=1e-5)
    assert state.positions[0].start == len(asked.token_ids) - 3
    assert state.positions[1] == AudioPositions.after(len(asked.null_ids))
    assert len(latents_of(Sampler(model), asked)) == math.ceil(sum(durations))
    # The bounds of the request hold whatever is predicted.
    for bounds in ({"max_frames": 5}, {"min_frames": 33}):
        bounded_request = dataclasses.replace(asked, **bounds)
        assert len(latents_of(Sampler(model), bounded_request)) == next(iter(bounds.values()))
        assert Sampler(model).open(bounded_request).is_cut == ("max_frames" in bounds)


def test_no_token_takes_longer_than_twenty_frames_by_prediction() -> None:
    model = prepared_model(tiny_config(paces_speech=True))
    torch.nn.init.constant_(model.duration_head.output_proj.bias, 5.0)
    asked = voiced(num_words=3, exact_frames=None)
    assert durations_of(Sampler(model), asked) == pytest.approx([20.0] * 3)


def test_durations_fill_the_frames_that_are_asked_for() -> None:
    sampler = Sampler(prepared_model(tiny_config(paces_speech=True)))
    free = durations_of(sampler, voiced(num_words=3, exact_frames=None))
    exact = durations_of(sampler, voiced(num_words=3, exact_frames=16))
    assert sum(exact) == pytest.approx(16)
    assert exact[0] / exact[2] == pytest.approx(free[0] / free[2])


def test_speed_divides_the_predicted_durations() -> None:
    sampler = Sampler(prepared_model(tiny_config(paces_speech=True)))
    asked = voiced(num_words=2, exact_frames=None)
    plain, fast, slow = (
        durations_of(sampler, dataclasses.replace(asked, speed=speed)) for speed in (1.0, 2.0, 0.5)
    )
    assert fast == pytest.approx([duration / 2 for duration in plain])
    assert slow == pytest.approx([duration * 2 for duration in plain])


def test_the_words_of_a_prompt_fill_it_and_set_the_rate_of_what_follows() -> None:
    sampler = Sampler(prepared_model(tiny_config(paces_speech=True)))
    alone = durations_of(sampler, voiced(num_words=3, exact_frames=None))
    slowness = 1.5
    prompt = torch.zeros(8, 6)
    scale = 8 / (slowness * sum(alone[:2]))  # makes the prompt 1.5 times as slow as predicted
    for layer in (sampler.model.duration_head.output_proj,):
        layer.bias.data += math.log(scale)
    asked = voiced(num_words=3, num_prompt_words=2, prompt_latents=prompt, exact_frames=None)
    for speed in (1.0, 2.0):
        found = durations_of(sampler, dataclasses.replace(asked, speed=speed))
        assert sum(found[:2]) == pytest.approx(8)
        assert found[2] == pytest.approx(alone[2] * scale * slowness / speed, rel=1e-4)


def test_audio_without_words_or_of_a_model_without_pace_follows_the_prefix() -> None:
    asked = voiced()
    for changes, given in (
        ({"paces_speech": True}, asked),
        ({}, dataclasses.replace(asked, num_words=2)),
    ):
        state = Sampler(prepared_model(tiny_config(**changes))).open(given)
        assert state.positions[0] == AudioPositions.after(len(asked.token_ids))
