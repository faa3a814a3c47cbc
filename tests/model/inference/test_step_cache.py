"""What a step writes to the cache, and what it leaves alone; test_sampler.py has the attention."""

from __future__ import annotations

import torch
from torch import Tensor

from model.inference.cache import CacheRows, CacheSize, KVCache
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


def test_a_short_request_is_not_carried_through_the_places_of_a_long_one() -> None:
    cache = new_cache()
    requests = [filled_rows(cache, 2, n) for n in (5, 7, 400, 6, 4)]
    pending = [True, False, True, True, False]
    step = StepCache(requests, pending)
    fused, block = step.fused_attention(), step.block_attention(4)
    assert [(span.rows.start, span.rows.stop) for span in fused.spans] == [(0, 4), (4, 6), (6, 10)]
    # Two blocks of 4 behind the longest of each group.
    assert [span.own for span in fused.spans] == [slice(7, 15), slice(400, 408), slice(6, 14)]
    assert [span.own for span in block.spans] == [slice(11, 15), slice(404, 408), slice(10, 14)]
    assert [span.rows.stop - span.rows.start for span in block.spans] == [4, 2, 2]
    assert [span.rows for span in step.block_attention(1).spans] == [slice(0, 2)]

    queries, keys, values = heads(10, 8)
    together = fused(0, queries, keys, values)
    for index, request in enumerate(requests):
        rows = slice(2 * index, 2 * index + 2)
        alone = StepCache([request], [pending[index]])
        if pending[index]:
            expected = alone.fused_attention()(0, queries[rows], keys[rows], values[rows])
            torch.testing.assert_close(together[rows], expected)
        else:
            own = (part[rows, :, 4:] for part in (queries, keys, values))
            torch.testing.assert_close(together[rows, :, 4:], alone.block_attention(1)(0, *own))


def test_clean_blocks_of_every_group_are_kept_behind_their_own_rows() -> None:
    cache = new_cache()
    requests = [filled_rows(cache, 1, 5), filled_rows(cache, 1, 400), filled_rows(cache, 1, 6)]
    step = StepCache(requests, [False] * 3)
    query, key, value = heads(3)
    for layer in range(3):
        step.block_attention(3)(layer, query, key, value)
    step.commit(has_clean_block=True)
    for row, length in enumerate((5, 400, 6)):
        assert torch.equal(cache.keys[1, row, :, length : length + 4], key[row])
        assert torch.equal(cache.values[2, row, :, length : length + 4], value[row])
    assert [request.length for request in requests] == [9, 404, 10]


def test_with_few_shapes_all_requests_have_one_place_of_scratch() -> None:
    size = CacheSize(num_rows=6, num_tokens=600, has_few_shapes=True)
    cache = KVCache(tiny_config(), torch.device("cpu"), torch.float32, size)
    requests = [filled_rows(cache, 2, n) for n in (5, 400, 6)]
    (span,) = StepCache(requests, [False] * 3).fused_attention().spans
    assert span.rows == slice(0, 6)
