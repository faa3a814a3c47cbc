"""What a step writes to the cache, and what it leaves alone; test_sampler.py has the attention."""

from __future__ import annotations

import torch
from torch import Tensor

from model.inference.cache import CacheRows, KVCache
from model.inference.step_cache import StepCache
from tests.factories.model import tiny_config


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
