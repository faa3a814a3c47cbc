"""Rows of the cache: who gets which, growth, and the bound."""

from __future__ import annotations

import pytest
import torch

from model.inference.cache import (
    CacheFullError,
    CacheRows,
    CacheSize,
    CacheSizeError,
    KeysValues,
    KVCache,
)
from tests.factories.model import tiny_config


def new_cache(size: CacheSize | None = None, max_bytes: int | None = None) -> KVCache:
    return KVCache(tiny_config(), torch.device("cpu"), torch.float32, size, max_bytes)


def tokens(num_rows: int, num_tokens: int) -> KeysValues:
    shape = (3, num_rows, 2, num_tokens, 8)
    return torch.randn(shape), torch.randn(shape)


def take(cache: KVCache, num_rows: int, num_tokens: int = 3, num_blocks: int = 2) -> CacheRows:
    prefix = tokens(num_rows, num_tokens)
    return cache.take(prefix, (0, 1)[:num_rows], num_blocks=num_blocks)


def test_blocks_follow_the_prefix() -> None:
    cache = new_cache()
    prefix = tokens(1, 3)
    rows = cache.take(prefix, (1,), num_blocks=3)
    blocks = [tokens(1, 4) for _ in range(3)]
    for keys, values in blocks:
        # Scratch overlaps the place that the block goes to.
        start = rows.length + 2
        cache.keys[:, rows.rows, :, start : start + 4] = keys
        cache.values[:, rows.rows, :, start : start + 4] = values
        rows.append(start)
    assert rows.length == 3 + 12
    for memory, index in ((cache.keys, 0), (cache.values, 1)):
        expected = torch.cat([prefix[index], *(block[index] for block in blocks)], dim=3)
        assert torch.equal(memory[:, rows.rows, :, :15], expected)
    assert rows.visible(17).tolist() == [[False] + 14 * [True] + 2 * [False]]


def test_growing_keeps_what_is_there() -> None:
    cache = new_cache()
    first = take(cache, 2)
    before = cache.keys[:, first.rows, :, :3].clone()
    # More rows, then longer ones.
    others = [take(cache, 2) for _ in range(4)]
    others.append(take(cache, 1, num_tokens=40, num_blocks=10))
    assert torch.equal(cache.keys[:, first.rows, :, :3], before)
    taken = [row for rows in (first, *others) for row in range(rows.rows.start, rows.rows.stop)]
    assert len(set(taken)) == len(taken) == 11


def test_a_cache_of_fixed_size_never_grows() -> None:
    cache = new_cache(CacheSize(num_rows=4, num_tokens=20))
    size = cache.size_bytes
    with pytest.raises(CacheSizeError, match=r"needs 23 tokens .* a row holds 20"):
        take(cache, 1, num_tokens=3, num_blocks=3)
    first, second = take(cache, 1), take(cache, 2)
    with pytest.raises(CacheFullError, match="all 4 rows"):
        take(cache, 2)
    cache.release(first)
    third = take(cache, 2)
    assert (third.rows, second.rows) == (slice(0, 2), slice(2, 4))
    assert cache.size_bytes == size


def test_as_many_requests_of_any_kind_fit_as_there_are_pairs_of_rows() -> None:
    cache = new_cache(CacheSize(num_rows=6, num_tokens=20))
    generator = torch.Generator().manual_seed(0)
    running: list[CacheRows] = []
    for _ in range(200):
        if len(running) == 3:
            index = int(torch.randint(0, 3, (1,), generator=generator))
            cache.release(running.pop(index))
        running.append(take(cache, int(torch.randint(1, 3, (1,), generator=generator))))


TOKEN_BYTES = 2 * 3 * 2 * 8 * 4
"""Keys and values, 3 layers, 2 heads of width 8, in fp32."""


def test_a_bounded_cache_grows_to_its_bound_and_holds_as_many_requests_as_fit() -> None:
    cache = new_cache(max_bytes=6 * 19 * TOKEN_BYTES)  # 3 tokens and 4 blocks a row
    running = [take(cache, 2) for _ in range(3)]
    held = cache.keys[:, running[2].rows, :, :3].clone()
    assert cache.size_bytes == 6 * 19 * TOKEN_BYTES
    with pytest.raises(CacheFullError, match=r"2 rows of 19 tokens .* close a request first"):
        take(cache, 2)
    cache.release(running.pop(0))
    running.append(take(cache, 1))
    running.append(take(cache, 1))
    assert torch.equal(cache.keys[:, running[1].rows, :, :3], held)
    with pytest.raises(CacheFullError):
        take(cache, 1)
    assert cache.size_bytes <= 6 * 19 * TOKEN_BYTES


def test_what_an_empty_bounded_cache_cannot_hold_is_refused_for_good() -> None:
    cache = new_cache(max_bytes=6 * 19 * TOKEN_BYTES)
    with pytest.raises(CacheSizeError, match=r"2 rows of 416 tokens .* shorten the text"):
        take(cache, 2, num_tokens=400)
    assert cache.size_bytes == 0
    assert len({take(cache, 2).rows.start for _ in range(3)}) == 3


def test_a_long_request_that_has_ended_takes_no_room_from_short_ones() -> None:
    cache = new_cache(max_bytes=6 * 19 * TOKEN_BYTES)
    long = take(cache, 2, num_tokens=41)
    with pytest.raises(CacheFullError):
        take(cache, 2)
    cache.release(long)
    first = take(cache, 2)
    first.make_ready(0, 50)  # scratch behind the long rows of a step before
    before = cache.keys[:, first.rows, :, :3].clone()
    others = [take(cache, 2), take(cache, 2)]
    assert cache.size_bytes == 6 * 19 * TOKEN_BYTES
    assert torch.equal(cache.keys[:, first.rows, :, :3], before)
    assert first.num_ready == 19  # what was ready behind has gone
    for rows in (first, *others):
        cache.release(rows)
    assert take(cache, 2, num_tokens=41).rows == slice(0, 2)


@pytest.mark.parametrize(("num_rows", "num_tokens"), [(1, 20), (4, 0)])
def test_a_size_without_room_is_refused(num_rows: int, num_tokens: int) -> None:
    with pytest.raises(ValueError, match="at least 2 rows and 1 token"):
        CacheSize(num_rows=num_rows, num_tokens=num_tokens)
