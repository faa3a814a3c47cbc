"""Teacher-forced blocks through the cache give the states of the packed training forward."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from model.attention import arflow_mask
from model.audiocalm import AudioCALM
from model.batch import Document, pack
from model.config import ModelConfig
from model.experts import route_rows
from model.flow import interpolate
from model.kv_cache import KVCache, PrefillAttention, StepCache, filled_cache
from model.sequence import CLEAN, NOISY, document_layout
from tests.factories.model import random_document, random_model, tiny_config

TOLERANCE = 1e-5
"""float32: the same sums, over keys in another order."""


def prefilled(model: AudioCALM, document: Document) -> KVCache:
    config = model.config
    num_text = len(document.token_ids)
    layout = document_layout(num_text, 0, 0, config.frames_per_block)
    indices = (torch.zeros(num_text, dtype=torch.int32), layout.segment, layout.block, layout.copy)
    mask = arflow_mask(*(index[None] for index in indices), config.window_blocks)
    attention = PrefillAttention(mask)
    speaker = None if document.speaker is None else document.speaker[None, None]
    embeddings = model.embed_prefix(document.token_ids[None], speaker)
    route = route_rows([document.uses_expert], num_text, mask.device)
    model.backbone(embeddings, layout.position[None], attention, route)
    kept = attention.kept()
    return filled_cache(kept, (0,), num_text, config.frames_per_block, config.window_blocks)


def cached_states(
    model: AudioCALM, documents: list[Document], is_fused: bool
) -> tuple[list[Tensor], list[Tensor]]:
    """Velocities `copies frames latent_dim` and clean states of documents that step together."""
    config = model.config
    frames = config.frames_per_block
    caches = [prefilled(model, document) for document in documents]
    uses = [document.uses_expert for document in documents]
    copies = documents[0].num_copies
    velocities: list[list[Tensor]] = []
    states: list[Tensor] = []
    for block in range(len(documents[0].latents) // frames):
        span = slice(block * frames, (block + 1) * frames)
        before = slice(span.start - frames, span.start)
        position = torch.tensor(
            [[len(d.token_ids) + span.start + i for i in range(frames)] for d in documents]
        )
        has_pending = is_fused and block > 0
        cache = StepCache(caches, [has_pending] * len(documents))

        def run(embeddings: Tensor, at: Tensor, attention: Any) -> Tensor:
            route = route_rows(uses, embeddings.shape[1], embeddings.device)
            return model.backbone(embeddings, at, attention, route)

        of_copies = []
        for copy in range(copies):
            time = torch.stack([d.flow_time[copy, block] for d in documents])[:, None]
            noisy = torch.stack(
                [
                    interpolate(d.latents[span], d.noise[copy, span], t.expand(frames))
                    for d, t in zip(documents, time, strict=True)
                ]
            )
            embeddings = model.embed_noisy(noisy, model.embed_time(time))
            if has_pending and copy == 0:
                clean = model.embed_clean(torch.stack([d.history[before] for d in documents]))
                both = torch.cat([position - frames, position], dim=1)
                hidden = run(torch.cat([clean, embeddings], dim=1), both, cache.fused_attention())
                states.append(hidden[:, :frames])
                hidden = hidden[:, frames:]
            else:
                hidden = run(embeddings, position, cache.block_attention())
            of_copies.append(model.flow_head(hidden, time))
        velocities.append(of_copies)
        if not is_fused:
            clean = model.embed_clean(torch.stack([d.history[span] for d in documents]))
            states.append(run(clean, position, cache.block_attention()))
        cache.commit(has_clean_block=not is_fused)
    by_document = torch.stack([torch.stack(v) for v in velocities])
    return (
        [by_document[:, :, i].transpose(0, 1).flatten(1, 2) for i in range(len(documents))],
        [torch.cat([state[i] for state in states]) for i in range(len(documents))],
    )


def ragged_documents(config: ModelConfig) -> list[Document]:
    common: dict[str, Any] = {"num_copies": 2, "num_blocks": 5, "history_noise": 0.3}
    return [
        random_document(config, 0, modality="speech", has_speaker=True, **common),
        random_document(config, 1, num_text=2, modality="music", **common),
        random_document(config, 2, num_text=9, modality="speech", **common),
    ]


@pytest.mark.parametrize("is_fused", [False, True], ids=["unfused", "fused"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"frames_per_block": 1},
        {"frames_per_block": 8},
        {"window_blocks": 1},
        {"window_blocks": 3},
    ],
)
@pytest.mark.parametrize("num_documents", [1, 3])
def test_cache_states_equal_packed_states(
    changes: dict[str, Any], is_fused: bool, num_documents: int
) -> None:
    config = tiny_config(**changes)
    model = random_model(config)
    documents = ragged_documents(config)[:num_documents]
    batch = pack([documents], config, sum(document.length() for document in documents) + 3)
    with torch.no_grad():
        packed = model.hidden_states(batch)[0]
        velocities, states = cached_states(model, documents, is_fused)
        expected = model(batch).velocity[0]
    for index in range(num_documents):
        mine = batch.document[0] == index
        noisy = expected[mine & (batch.segment[0] == NOISY)].reshape(2, -1, config.latent_dim)
        torch.testing.assert_close(velocities[index], noisy, atol=TOLERANCE, rtol=TOLERANCE)
        clean = packed[mine & (batch.segment[0] == CLEAN)]
        # Fused, the last block is never written: nothing follows it.
        written = states[index]
        assert len(clean) - len(written) == (config.frames_per_block if is_fused else 0)
        torch.testing.assert_close(written, clean[: len(written)], atol=TOLERANCE, rtol=TOLERANCE)


def empty_cache(window_blocks: int | None = None) -> KVCache:
    def slots() -> Tensor:
        return torch.randn(2, 1, 2, 3, 4)

    return KVCache(slots(), slots(), (1,), 3, 2, window_blocks)


def test_appending_past_the_capacity_keeps_what_was_there() -> None:
    cache = empty_cache()
    prefix = cache.keys.clone()
    blocks = [torch.randn(2, 1, 2, 2, 4) for _ in range(7)]
    for block in blocks:
        cache.append(block, -block)
    assert cache.num_slots == 3 + 14
    held = cache.keys[:, :, :, : cache.num_slots]
    assert torch.equal(held, torch.cat([prefix, *blocks], dim=3))
    assert torch.equal(cache.values[:, :, :, 3:17], -torch.cat(blocks, dim=3))


def test_a_window_is_a_ring_of_the_last_blocks() -> None:
    cache = empty_cache(window_blocks=2)
    blocks = [torch.full((2, 1, 2, 2, 4), float(index)) for index in range(5)]
    for block in blocks:
        cache.append(block, block)
    assert cache.num_slots == 3 + 4
    assert sorted(cache.keys[0, 0, 0, 3:7, 0].tolist()) == [3, 3, 4, 4]
    visible = cache.visible_slots(9, hides_oldest=True)[0]
    assert visible[:3].tolist() == [False, True, True]
    assert set(cache.keys[0, 0, 0, :7, 0][visible[:7]].tolist()) & {3.0, 4.0} == {4.0}
    assert not visible[7:].any()


def test_one_request_works_in_its_own_cache_without_a_copy() -> None:
    cache = empty_cache()
    cache.reserve(4)
    step = StepCache([cache], [False])
    assert step.keys is cache.keys
    block = torch.randn(1, 2, 2, 4)
    attention = step.block_attention()
    for layer in range(2):
        attention(layer, torch.randn(1, 4, 2, 4), block, block)
    memory = cache.keys.data_ptr()
    step.commit(has_clean_block=True)
    assert cache.keys.data_ptr() == memory
    assert cache.num_blocks == 1
    assert torch.equal(cache.keys[0, :, :, 3:5], block)


def test_a_noisy_block_leaves_nothing_in_the_cache() -> None:
    caches = [empty_cache(), empty_cache()]
    before = [dataclasses.replace(cache) for cache in caches]
    step = StepCache(caches, [False, False])
    step.block_attention()(0, torch.randn(2, 4, 2, 4), *torch.randn(2, 2, 2, 2, 4))
    step.commit(has_clean_block=False)
    for cache, old in zip(caches, before, strict=True):
        assert cache.num_slots == old.num_slots
        assert torch.equal(cache.keys[:, :, :, :3], old.keys[:, :, :, :3])
