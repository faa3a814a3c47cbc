"""Static slots give the latents of the dynamic sampler, whoever shares or held them before."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import jaxtyping
import pytest
import torch
from torch import Tensor

from model.audiocalm import AudioCALM
from model.config import HeadConfig
from model.generation import GenerationRequest, Sampler, SamplingOptions
from model.slot_sampler import SlotSampler
from model.slots import NoSlotError, SlotPlan
from tests.factories.model import (
    AUDIO_ID,
    LOCAL_HEAD,
    NULL_ID,
    SPEAKER_ID,
    random_model,
    tiny_config,
)

TOLERANCE = 1e-4
"""float32: the same sums over keys in another order, through several blocks."""
HEADS = [tiny_config().head, LOCAL_HEAD]
VOICE = torch.linspace(-1, 1, 5)
PLAN = SlotPlan(num_slots=3, num_text=9, num_frames=32, num_evaluations=8)


def request(seed: int, **changes: Any) -> GenerationRequest:
    options = {"num_flow_steps": 3, **changes.pop("options", {})}
    fields: dict[str, Any] = {
        "token_ids": (3, 1, 4, AUDIO_ID),
        "null_ids": (NULL_ID, AUDIO_ID),
        "uses_expert": False,
        "seed": seed,
        "max_frames": 16,
        "exact_frames": 16,
        "options": SamplingOptions(**options),
    }
    return GenerationRequest(**{**fields, **changes})


def voiced(seed: int, **changes: Any) -> GenerationRequest:
    fields = {"token_ids": (SPEAKER_ID, 7, AUDIO_ID), "uses_expert": True, "speaker": VOICE}
    return request(seed, **{**fields, **changes})


REQUESTS = [
    request(1, exact_frames=6),
    voiced(2),
    request(3, options={"num_flow_steps": 2, "solver": "midpoint", "temperature": 0.5}),
    request(4, options={"guidance_scale": 1.0, "cfg_zero_star": True}),
    voiced(5, exact_frames=None, options={"stop_threshold": 0.6}),
    request(6, exact_frames=None, options={"stop_threshold": 0.6, "guidance_scale": 1.0}),
    request(7, prompt_latents=torch.linspace(-1, 1, 60).reshape(10, 6)),
    request(8, options={"guidance_interval": (0.1, 0.6), "first_flow_steps": 2}),
    voiced(9, options={"time_grid": "shift", "cfg_zero_star": True}),
    request(10, options={"sde_temperature": 0.5, "guidance_rescale": 0.7}),
]


def latents_of(sampler: Sampler, asked: GenerationRequest) -> Tensor:
    blocks = [block.latents[: block.num_valid_frames] for block in sampler.generate(asked)]
    return torch.cat(blocks)


def mixed(sampler: Sampler, num_slots: int) -> list[Tensor]:
    """All requests, each opened as soon as a slot is free."""
    parts: list[list[Tensor]] = [[] for _ in REQUESTS]
    waiting, running = list(enumerate(REQUESTS)), {}
    while waiting or running:
        if waiting and len(running) < num_slots:
            index, asked = waiting.pop(0)
            running[index] = sampler.open(asked)
        order = sorted(running, reverse=True)
        for index, block in zip(order, sampler.step([running[i] for i in order]), strict=True):
            parts[index].append(block.latents[: block.num_valid_frames])
            if block.is_last:
                del running[index]
    return [torch.cat(blocks) for blocks in parts]


def model_with(head: HeadConfig, window_blocks: int | None, device: str = "cpu") -> AudioCALM:
    model = random_model(tiny_config(head=head, window_blocks=window_blocks))
    model.set_latent_stats(torch.linspace(-1, 1, 6), torch.linspace(0.5, 2, 6))
    return model.to(device)


@pytest.mark.parametrize("window_blocks", [None, 2])
@pytest.mark.parametrize("head", HEADS, ids=["thin", "local"])
def test_slots_give_the_latents_of_a_request_alone(
    head: HeadConfig, window_blocks: int | None
) -> None:
    model = model_with(head, window_blocks)
    dynamic = Sampler(model)
    expected = [latents_of(dynamic, asked) for asked in REQUESTS]
    given = mixed(SlotSampler(model, PLAN), PLAN.num_slots)
    for mine, theirs in zip(given, expected, strict=True):
        torch.testing.assert_close(mine, theirs, atol=TOLERANCE, rtol=TOLERANCE)


@pytest.fixture
def traceable() -> Iterator[None]:
    """Without the type checks of the tests, which Dynamo cannot trace."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.gpu
@pytest.mark.usefixtures("traceable")
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("compiles", [False, True], ids=["graphs", "compiled graphs"])
@pytest.mark.parametrize("head", HEADS, ids=["thin", "local"])
def test_captured_passes_give_the_latents_of_the_cpu(head: HeadConfig, compiles: bool) -> None:
    expected = [latents_of(Sampler(model_with(head, None)), asked) for asked in REQUESTS]
    plan = dataclasses.replace(PLAN, compiles=compiles)
    sampler = SlotSampler(model_with(head, None, "cuda"), plan)
    # Twice: the second time every graph is replayed by requests that did not capture it.
    for _ in range(2):
        for mine, theirs in zip(mixed(sampler, plan.num_slots), expected, strict=True):
            # float32 on both, and matrix products of another library.
            torch.testing.assert_close(mine.cpu(), theirs, atol=1e-3, rtol=1e-3)


def test_a_slot_that_held_infinities_is_clean_for_the_next() -> None:
    model = model_with(HEADS[0], None)
    sampler = SlotSampler(model, dataclasses.replace(PLAN, num_slots=1))
    state = sampler.open(request(0))
    sampler.step([state])
    state.cache.keys.fill_(torch.inf)
    state.cache.values.fill_(torch.nan)
    sampler.close(state)
    torch.testing.assert_close(
        latents_of(sampler, REQUESTS[1]),
        latents_of(Sampler(model), REQUESTS[1]),
        atol=TOLERANCE,
        rtol=TOLERANCE,
    )


def test_a_pending_block_that_is_not_finite_is_gone_with_its_request() -> None:
    """The next request of the slot has no pending block, and runs beside one that has."""
    model = model_with(HEADS[0], None)
    sampler = SlotSampler(model, PLAN)
    broken, beside = sampler.open(request(1)), sampler.open(request(2, exact_frames=32))
    sampler.step([broken, beside])
    broken.pending = torch.full_like(broken.pending, torch.nan)
    sampler.step([broken, beside])
    sampler.close(broken)
    state = sampler.open(request(3, exact_frames=4))
    block, _ = sampler.step([state, beside])
    expected = latents_of(Sampler(model), request(3, exact_frames=4))
    torch.testing.assert_close(block.latents[:4], expected, atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.parametrize("head", ["thin", "local"])
def test_every_shape_is_compiled_as_one_graph(head: str) -> None:
    """In a process of its own: the type checks of the tests break graphs."""
    command = [sys.executable, "-m", "tests.factories.compiled_passes", head]
    given = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [int(line) for line in given.stdout.split()] == [1, 1, 1]


def test_slots_are_given_back_when_a_later_group_breaks_down(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sampler = SlotSampler(model_with(HEADS[0], None), dataclasses.replace(PLAN, num_slots=2))
    ending = sampler.open(request(1, exact_frames=4))
    breaking = sampler.open(request(2, options={"num_flow_steps": 2}))
    step = sampler._block_step

    def fragile(states: list[Any], schedules: list[Any]) -> Any:
        if breaking in states:
            raise RuntimeError("out of memory")
        return step(states, schedules)

    monkeypatch.setattr(sampler, "_block_step", fragile)
    with pytest.raises(RuntimeError, match="out of memory"):
        sampler.step([ending, breaking])
    assert ending.is_done
    sampler.open(request(3))


def test_the_expert_is_not_called_while_no_request_uses_it() -> None:
    model = model_with(HEADS[0], None)
    calls: list[int] = []
    for layer in model.backbone.layers:
        layer.expert.register_forward_hook(lambda *_: calls.append(1))
    sampler = SlotSampler(model, PLAN)
    latents_of(sampler, request(0))
    assert not calls
    latents_of(sampler, voiced(0))
    assert calls


def test_slots_are_given_back_by_the_end_and_by_closing() -> None:
    sampler = SlotSampler(model_with(HEADS[0], None), dataclasses.replace(PLAN, num_slots=2))
    first, second = sampler.open(request(1, exact_frames=4)), sampler.open(request(2))
    with pytest.raises(NoSlotError, match="all 2 slots are taken"):
        sampler.open(request(3))
    sampler.step([first, second])
    assert first.is_done
    third = sampler.open(request(3))
    for _ in range(2):
        sampler.close(second)
    sampler.open(request(4))
    with pytest.raises(ValueError, match="finished"):
        sampler.step([second, third])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"token_ids": (3,) * 10}, "10 prefix tokens; slots are made for 9"),
        ({"null_ids": (NULL_ID,) * 11}, "11 prefix tokens"),
        ({"exact_frames": 33}, "33 frames; slots are made for 32"),
        ({"exact_frames": None, "max_frames": 40}, "40 frames"),
        ({"prompt_latents": torch.zeros(20, 6)}, "36 frames"),
        ({"options": {"num_flow_steps": 5, "solver": "midpoint"}}, "10 evaluations a block"),
    ],
)
def test_what_does_not_fit_a_slot_is_refused(changes: dict[str, Any], message: str) -> None:
    sampler = SlotSampler(model_with(HEADS[0], None), PLAN)
    with pytest.raises(ValueError, match=message):
        sampler.open(request(0, **changes))


@pytest.mark.parametrize(
    ("field", "value"),
    [("num_slots", 0), ("num_text", 0), ("num_frames", 0), ("num_evaluations", 3)],
)
def test_a_plan_without_room_is_refused(field: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{field}={value}"):
        dataclasses.replace(PLAN, **{field: value})
