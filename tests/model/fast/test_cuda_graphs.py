"""Captured passes give the latents of uncaptured ones; on a CPU the work is repeated instead."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from model.audiocalm import AudioCALM
from model.config import HeadConfig
from model.fast.cuda_graphs import Capture, GraphBackbone
from model.inference.cache import CacheSize, KVCache
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

TOLERANCE = 1e-4
"""float32: the same sums over more keys, through several blocks."""
HEADS = {"thin": tiny_config().head, "local": LOCAL_HEAD}


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
    fields = {"token_ids": (SPEAKER_ID, 7, AUDIO_ID), "uses_expert": True, "speaker": torch.ones(5)}
    return request(seed, **{**fields, **changes})


REQUESTS = [
    request(1, exact_frames=6),
    voiced(2),
    request(3, exact_frames=90, options={"num_flow_steps": 1}),
    request(4, options={"guidance_scale": 1.0}),
    voiced(5, exact_frames=None, options={"stop_threshold": 0.6}),
    request(6, exact_frames=None, options={"num_flow_steps": 2, "guidance_scale": 1.0}),
    request(7, prompt_latents=torch.linspace(-1, 1, 60).reshape(10, 6)),
    voiced(8, options={"guidance_scale": 3.0}),
]


def model_with(head: HeadConfig, device: str = "cpu") -> AudioCALM:
    model = random_model(tiny_config(head=head))
    model.set_latent_stats(torch.linspace(-1, 1, 6), torch.linspace(0.5, 2, 6))
    return model.to(device)


def graph_sampler(model: AudioCALM, capture: Capture | None = None) -> Sampler:
    size = CacheSize(num_rows=6, num_tokens=120, has_few_shapes=True)
    cache = KVCache(model.config, model.device, model.dtype, size)
    return Sampler(model, GraphBackbone(model.backbone, cache, capture), cache)


def repeated(work: Any) -> Any:
    """Like a capture, it runs the work once before it is asked to."""
    work()
    return work


def latents_of(sampler: Sampler, asked: GenerationRequest) -> Tensor:
    blocks = [block.latents[: block.num_valid_frames] for block in sampler.generate(asked)]
    return torch.cat(blocks)


def mixed(sampler: Sampler) -> list[Tensor]:
    """All requests, three at a time; in every third step the oldest is paused."""
    parts: list[list[Tensor]] = [[] for _ in REQUESTS]
    waiting, running = list(enumerate(REQUESTS)), {}
    for step in range(1000):
        if waiting and len(running) < 3:
            index, asked = waiting.pop(0)
            running[index] = sampler.open(asked)
        if not running:
            break
        chosen = sorted(running)[int(step % 3 == 2 and len(running) > 1) :]
        for index, block in zip(chosen, sampler.step([running[i] for i in chosen]), strict=True):
            parts[index].append(block.latents[: block.num_valid_frames])
            if block.is_last:
                del running[index]
    return [torch.cat(blocks) for blocks in parts]


@pytest.mark.parametrize("head", HEADS)
def test_captured_passes_give_the_latents_of_a_request_alone(head: str) -> None:
    model = model_with(HEADS[head])
    expected = [latents_of(Sampler(model), asked) for asked in REQUESTS]
    for mine, theirs in zip(mixed(graph_sampler(model, repeated)), expected, strict=True):
        torch.testing.assert_close(mine, theirs, atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("head", HEADS)
def test_cuda_graphs_give_the_latents_of_the_cpu(head: str) -> None:
    model = model_with(HEADS[head])
    expected = [latents_of(Sampler(model), asked) for asked in REQUESTS]
    sampler = graph_sampler(model_with(HEADS[head], device="cuda"))
    # Twice: the second time every graph is replayed by requests that did not capture it.
    for _ in range(2):
        for mine, theirs in zip(mixed(sampler), expected, strict=True):
            # float32 on both, and matrix products of another library.
            torch.testing.assert_close(mine.cpu(), theirs, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("head", HEADS)
def test_nothing_is_captured_after_warming_up(head: str) -> None:
    sampler = graph_sampler(model_with(HEADS[head]), repeated)
    backbone = sampler.backbone
    assert isinstance(backbone, GraphBackbone)
    backbone.warm_up()
    captured = backbone.num_captured
    # 2 and 6 rows, scratch at 64 and 128, with and without a pending block and the expert.
    assert captured == 2 * 2 * 2 * 2
    mixed(sampler)
    assert backbone.num_captured == captured


def test_the_expert_is_not_called_while_no_request_uses_it() -> None:
    model = model_with(HEADS["thin"])
    calls: list[int] = []
    for layer in model.backbone.layers:
        layer.expert.register_forward_hook(lambda *_: calls.append(1))
    sampler = graph_sampler(model, repeated)
    latents_of(sampler, request(0))
    assert not calls
    latents_of(sampler, voiced(0))
    assert calls


def test_a_request_that_broke_down_leaves_nothing_to_the_next() -> None:
    model = model_with(HEADS["thin"])
    sampler = graph_sampler(model, repeated)
    broken, beside = sampler.open(request(1)), sampler.open(request(2))
    sampler.step([broken, beside])
    broken.pending = torch.full_like(broken.pending, torch.nan)
    sampler.step([broken, beside])
    sampler.close(broken)
    state = sampler.open(request(3, exact_frames=4))
    block, other = sampler.step([state, beside])
    expected = latents_of(Sampler(model), request(3, exact_frames=4))
    torch.testing.assert_close(block.latents, expected, atol=TOLERANCE, rtol=TOLERANCE)
    assert other.latents.isfinite().all()


def test_a_cache_of_many_shapes_is_refused() -> None:
    model = model_with(HEADS["thin"])
    cache = KVCache(model.config, model.device, model.dtype, CacheSize(num_rows=2, num_tokens=40))
    with pytest.raises(ValueError, match="has_few_shapes"):
        GraphBackbone(model.backbone, cache)
