"""Attention of the blocks of a step over the cached rows of their requests.

The blocks stand in scratch places behind the longest row of the step, `[pending | current]`: the
clean block of the step before, whose keys are still missing, and the block being generated. Every
flow evaluation overwrites the current block, so noisy keys never enter the cache. When the step
ends, clean blocks move from scratch to the end of their row; where they already stand there,
nothing is copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from jaxtyping import Bool
from torch import Tensor

from model.attention import attend_few
from model.inference.cache import CacheRows, KVCache


class StepCache:
    """The rows of requests that step together, with the scratch places of their blocks.

    Args:
        requests: Rows of each request; neighbours share attention calls where their rows adjoin.
        has_pending: Whether the last block of each request is still to be written.
    """

    def __init__(self, requests: Sequence[CacheRows], has_pending: Sequence[bool]) -> None:
        self._memory = requests[0].memory
        self._requests, self._has_pending = requests, has_pending
        frames = self._memory.frames_per_block
        self._start = self._memory.scratch_start(requests)
        leaves_room = any(has_pending) or self._memory.has_few_shapes
        self._block_start = self._start + (frames if leaves_room else 0)
        self._end = self._block_start + frames
        for request in requests:
            request.make_ready(self._start, self._end)
        self._masks = [self._visible(*pair) for pair in zip(requests, has_pending, strict=True)]

    def block_attention(self, num_requests: int) -> CachedAttention:
        """Attention of the current blocks, noisy or clean, of the first so many requests."""
        mask = torch.cat([block for block, _ in self._masks[:num_requests]])[:, None]
        rows = [request.rows for request in self._requests[:num_requests]]
        return CachedAttention(self._memory, rows, slice(self._block_start, self._end), mask)

    def fused_attention(self) -> CachedAttention:
        """Attention of all pending clean blocks, each followed by its current block."""
        block, pending = (torch.cat([masks[i] for masks in self._masks]) for i in (0, 1))
        mask = torch.stack([pending, block], dim=1)
        mask = mask.repeat_interleave(self._memory.frames_per_block, dim=1)
        rows = [request.rows for request in self._requests]
        return CachedAttention(self._memory, rows, slice(self._start, self._end), mask)

    def commit(self, *, has_clean_block: bool) -> None:
        """Keep the pending blocks, and the current ones if they are clean."""
        for request, has_pending in zip(self._requests, self._has_pending, strict=True):
            if has_pending:
                request.append(self._start)
            if has_clean_block:
                request.append(self._block_start)

    def _visible(self, request: CacheRows, has_pending: bool) -> tuple[Tensor, Tensor]:
        """Places visible to the current and to the pending block of a request, `rows places`."""
        pending = request.visible(self._end)
        block = pending.clone()
        block[:, self._start : self._block_start] = has_pending
        block[:, self._block_start :] = True
        # Without a pending block a block of zeros stands in its place; its output is unused.
        pending[:, self._start : self._block_start] = True
        return block, pending


class CachedRun:
    """Attention of new tokens in adjoining rows of the cache.

    Attributes:
        bias: Added to the scores, -inf where a place is hidden; None where none is.
    """

    def __init__(
        self,
        memory: KVCache,
        rows: slice,
        own: slice,
        mask: Bool[Tensor, " rows #seq places"],
    ) -> None:
        layers = [
            (keys[rows], values[rows])
            for keys, values in zip(memory.keys, memory.values, strict=True)
        ]
        self._own = [(keys[:, :, own], values[:, :, own]) for keys, values in layers]
        self._seen = [(keys[:, :, : own.stop], values[:, :, : own.stop]) for keys, values in layers]
        self.bias = None if bool(mask.all()) else memory.bias(mask)

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attention output of one layer."""
        own_keys, own_values = self._own[layer]
        own_keys.copy_(key)
        own_values.copy_(value)
        return attend_few(query, *self._seen[layer], self.bias)


class CachedAttention:
    """Attention of new tokens over the cache; their keys and values go to scratch places.

    Args:
        memory: The cache.
        requests: Rows of each request, in the order of the batch. Requests whose rows adjoin share
            a call.
        own: Scratch places of the new tokens.
        mask: Places that they may attend to; one query may stand for all.
    """

    def __init__(
        self,
        memory: KVCache,
        requests: Sequence[slice],
        own: slice,
        mask: Bool[Tensor, " rows #seq places"],
    ) -> None:
        self.memory, self.requests, self.own, self.mask = memory, requests, own, mask
        spans: list[slice] = []
        for rows in requests:
            adjoins = bool(spans) and spans[-1].stop == rows.start
            spans.append(slice(spans.pop().start if adjoins else rows.start, rows.stop))
        self._spans, self._sizes = spans, [span.stop - span.start for span in spans]

    @cached_property
    def runs(self) -> Sequence[CachedRun]:
        """Views and masks, made once a block and used by every flow evaluation."""
        parts = zip(self._spans, self.mask.split(self._sizes), strict=True)
        return [CachedRun(self.memory, rows, self.own, mask) for rows, mask in parts]

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attention output of one layer."""
        if len(self.runs) == 1:
            return self.runs[0](layer, query, key, value)
        parts = zip(*(tensor.split(self._sizes) for tensor in (query, key, value)), strict=True)
        return torch.cat([run(layer, *part) for run, part in zip(self.runs, parts, strict=True)])
