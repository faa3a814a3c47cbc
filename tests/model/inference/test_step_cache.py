"""Teacher-forced blocks through the cache give the states of the packed training forward."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from model.audiocalm import AudioCALM
from model.batch import Document, pack
from model.config import ModelConfig
from model.experts import route_rows
from model.flow import interpolate
from model.inference.cache import CacheRows, KVCache
from model.inference.prefill import read_prefix
from model.inference.step_cache import StepCache
from model.sequence import CLEAN, NOISY, AudioPositions
from tests.factories.model import random_document, random_model, tiny_config

TOLERANCE = 1e-5
"""float32: the same sums, over keys in another order."""


def prefilled(model: AudioCALM, cache: KVCache, document: Document) -> CacheRows:
    prefix, _ = read_prefix(
        model,
        model.backbone,
        document.token_ids.tolist(),
        torch.zeros(0, model.config.latent_dim),
        AudioPositions.after(len(document.token_ids)),
        uses_expert=document.uses_expert,
        speaker=document.speaker,
    )
    num_blocks = len(document.latents) // model.config.frames_per_block
    return cache.take(prefix, (0,), num_blocks=num_blocks)


def cached_states(
    model: AudioCALM, documents: list[Document], is_fused: bool
) -> tuple[list[Tensor], list[Tensor]]:
    """Velocities `copies frames latent_dim` and clean states of documents that step together."""
    config = model.config
    frames = config.frames_per_block
    cache = KVCache(config, model.device, model.dtype)
    rows = [prefilled(model, cache, document) for document in documents]
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
        step = StepCache(rows, [has_pending] * len(documents))
        alone = step.block_attention(len(rows))

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
            embeddings = model.latent_proj(noisy) + model.embed_time(time)
            if has_pending and copy == 0:
                clean = model.embed_clean(torch.stack([d.history[before] for d in documents]))
                both = torch.cat([position - frames, position], dim=1)
                hidden = run(torch.cat([clean, embeddings], dim=1), both, step.fused_attention())
                states.append(hidden[:, :frames])
                hidden = hidden[:, frames:]
            else:
                hidden = run(embeddings, position, alone)
            of_copies.append(model.flow_head(hidden, time))
        velocities.append(of_copies)
        if not is_fused:
            clean = model.embed_clean(torch.stack([d.history[span] for d in documents]))
            states.append(run(clean, position, alone))
        step.commit(has_clean_block=not is_fused)
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
@pytest.mark.parametrize("frames_per_block", [1, 4, 8])
@pytest.mark.parametrize("num_documents", [1, 3])
def test_cache_states_equal_packed_states(
    frames_per_block: int, is_fused: bool, num_documents: int
) -> None:
    config = tiny_config(frames_per_block=frames_per_block)
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


def filled_rows(cache: KVCache, num_rows: int, num_tokens: int) -> CacheRows:
    """Rows with a random prefix of so many tokens, the second row padded by one."""
    shape = (cache.keys.shape[0], num_rows, cache.keys.shape[2], num_tokens, cache.keys.shape[4])
    prefix = (torch.randn(shape), torch.randn(shape))
    return cache.take(prefix, (0, 1)[:num_rows], num_blocks=8)


def new_cache() -> KVCache:
    return KVCache(tiny_config(), torch.device("cpu"), torch.float32)


def heads(num_rows: int, num_tokens: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.randn(num_rows, 4, num_tokens, 8),
        torch.randn(num_rows, 2, num_tokens, 8),
        torch.randn(num_rows, 2, num_tokens, 8),
    )


def test_a_request_alone_is_committed_where_its_block_stands() -> None:
    rows = filled_rows(new_cache(), 1, 5)
    step = StepCache([rows], [False])
    query, key, value = heads(1)
    attention = step.block_attention(1)
    for layer in range(3):
        attention(layer, query, key, value)
    step.commit(has_clean_block=True)
    assert rows.length == 5 + 4
    assert torch.equal(rows.memory.keys[0, rows.rows, :, 5:9], key)
    assert torch.equal(rows.memory.values[2, rows.rows, :, 5:9], value)


def test_a_shorter_request_gets_its_block_behind_its_own_prefix() -> None:
    """Also where scratch and destination overlap: 5 and 7 tokens, blocks of 4."""
    cache = new_cache()
    requests = [filled_rows(cache, 1, 5), filled_rows(cache, 1, 7)]
    step = StepCache(requests, [False, False])
    query, key, value = heads(2)
    for layer in range(3):
        step.block_attention(2)(layer, query, key, value)
    step.commit(has_clean_block=True)
    assert torch.equal(cache.keys[1, 0, :, 5:9], key[0])
    assert torch.equal(cache.keys[1, 1, :, 7:11], key[1])
    assert [request.length for request in requests] == [9, 11]


def test_a_noisy_block_leaves_nothing_in_the_cache() -> None:
    cache = new_cache()
    requests = [filled_rows(cache, 2, 3), filled_rows(cache, 2, 3)]
    before = cache.keys[:, :4, :, :3].clone()
    step = StepCache(requests, [False, False])
    step.block_attention(2)(0, *heads(4))
    step.commit(has_clean_block=False)
    assert [request.length for request in requests] == [3, 3]
    assert torch.equal(cache.keys[:, :4, :, :3], before)


def test_rows_that_do_not_adjoin_give_the_attention_of_each_alone() -> None:
    cache = new_cache()
    first, between, last = (filled_rows(cache, 2, n) for n in (3, 6, 4))
    given = heads(4)
    together = StepCache([first, last], [False, False]).block_attention(2)(0, *given)
    for index, request in enumerate((first, last)):
        own = slice(2 * index, 2 * index + 2)
        alone = StepCache([request], [False]).block_attention(1)
        expected = alone(0, *(tensor[own] for tensor in given))
        torch.testing.assert_close(together[own], expected, atol=TOLERANCE, rtol=TOLERANCE)
    assert between.length == 6


def test_the_first_requests_attend_without_the_others() -> None:
    cache = new_cache()
    step = StepCache([filled_rows(cache, 2, 3), filled_rows(cache, 1, 6)], [False, False])
    given = heads(3)
    together = step.block_attention(2)(0, *given)
    fewer = step.block_attention(1)(0, *(tensor[:2] for tensor in given))
    torch.testing.assert_close(fewer, together[:2], atol=TOLERANCE, rtol=TOLERANCE)


def test_what_a_row_held_before_is_not_multiplied_into_the_next_request() -> None:
    """0 x NaN is NaN: hidden places of a shorter request must be finite."""
    cache = new_cache()
    filled_rows(cache, 1, 30)
    cache.release(filled_rows(cache, 1, 3))
    cache.keys.fill_(torch.nan)
    cache.values.fill_(torch.inf)
    requests = [filled_rows(cache, 1, 3), filled_rows(cache, 1, 9)]
    step = StepCache(requests, [False, False])
    assert step.block_attention(2)(0, *heads(2)).isfinite().all()
