"""Attention of the blocks of a step over the cached rows of their requests.

The blocks stand in scratch places, `[pending | current]`: the clean block of the step before, whose
keys are still missing, and the block being generated. Every flow evaluation overwrites the current
block, so noisy keys never enter the cache. When the step ends, clean blocks move from scratch to
the end of their row; where they already stand there, nothing is copied.

Requests whose rows adjoin share a call of the attention and the place of their scratch, behind the
longest of them, as far as their lengths are similar: a short request is not carried through the
places of a long one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool
from torch import Tensor

from model.attention import attend_few
from model.inference.cache import CacheRows, KVCache

_CALL_PLACES = 200
"""Places of one row that attention reads on a CPU in the time that another call of it costs: 40 us
against 0.24 us a place (the layers of the tiny preset, one thread). A group of requests is divided
where that saves more."""


@dataclass(frozen=True, eq=False)
class Span:
    """Adjoining rows whose new tokens stand at the same places.

    Attributes:
        rows: The rows.
        own: Scratch places of the new tokens.
        mask: Places that the new tokens may attend to; one query may stand for all.
    """

    rows: slice
    own: slice
    mask: Bool[Tensor, " rows #seq places"]


class _Group:
    """Requests with adjoining rows that share the place of their scratch.

    Args:
        requests: Rows of each.
        has_pending: Whether the last block of each is still to be written.
        leaves_room: Whether scratch has room for pending blocks.
    """

    def __init__(
        self, requests: Sequence[CacheRows], has_pending: Sequence[bool], *, leaves_room: bool
    ) -> None:
        memory = requests[0].memory
        frames = memory.frames_per_block
        self.requests, self._has_pending = requests, has_pending
        self._start = memory.scratch_start(requests)
        self._block_start = self._start + (frames if leaves_room else 0)
        self._end = self._block_start + frames
        for request in requests:
            request.make_ready(self._start, self._end)
        self._masks = [self._visible(*pair) for pair in zip(requests, has_pending, strict=True)]

    def block_span(self, num_requests: int) -> Span:
        """The current blocks of the first so many requests."""
        mask = torch.cat([block for block, _ in self._masks[:num_requests]])[:, None]
        return self._span(num_requests, slice(self._block_start, self._end), mask)

    def fused_span(self, frames: int) -> Span:
        """Pending blocks of so many frames, each followed by its current block."""
        block, pending = (torch.cat([masks[i] for masks in self._masks]) for i in (0, 1))
        mask = torch.stack([pending, block], dim=1).repeat_interleave(frames, dim=1)
        return self._span(len(self.requests), slice(self._start, self._end), mask)

    def commit(self, *, has_clean_block: bool) -> None:
        """Keep the pending blocks, and the current ones if they are clean."""
        for request, has_pending in zip(self.requests, self._has_pending, strict=True):
            if has_pending:
                request.append(self._start)
            if has_clean_block:
                request.append(self._block_start)

    def _span(self, num_requests: int, own: slice, mask: Tensor) -> Span:
        rows = slice(self.requests[0].rows.start, self.requests[num_requests - 1].rows.stop)
        return Span(rows, own, mask)

    def _visible(self, request: CacheRows, has_pending: bool) -> tuple[Tensor, Tensor]:
        """Places visible to the current and to the pending block of a request, `rows places`."""
        pending = request.visible(self._end)
        block = pending.clone()
        block[:, self._start : self._block_start] = has_pending
        block[:, self._block_start :] = True
        # Without a pending block a block of zeros stands in its place; its output is unused.
        pending[:, self._start : self._block_start] = True
        return block, pending


class StepCache:
    """The rows of requests that step together, with the scratch places of their blocks.

    Args:
        requests: Rows of each request.
        has_pending: Whether the last block of each request is still to be written.
    """

    def __init__(self, requests: Sequence[CacheRows], has_pending: Sequence[bool]) -> None:
        self._memory = requests[0].memory
        leaves_room = any(has_pending) or self._memory.has_few_shapes
        self._groups = [
            _Group(requests[part], has_pending[part], leaves_room=leaves_room)
            for part in _grouped(requests)
        ]

    def block_attention(self, num_requests: int) -> CachedAttention:
        """Attention of the current blocks, noisy or clean, of the first so many requests."""
        spans = []
        for group in self._groups:
            count = min(num_requests, len(group.requests))
            spans += [group.block_span(count)] if count else []
            num_requests -= count
        return CachedAttention(self._memory, spans)

    def fused_attention(self) -> CachedAttention:
        """Attention of all pending clean blocks, each followed by its current block."""
        frames = self._memory.frames_per_block
        return CachedAttention(self._memory, [group.fused_span(frames) for group in self._groups])

    def commit(self, *, has_clean_block: bool) -> None:
        """Keep the pending blocks, and the current ones if they are clean."""
        for group in self._groups:
            group.commit(has_clean_block=has_clean_block)


def _grouped(requests: Sequence[CacheRows]) -> list[slice]:
    """Requests that share a call of the attention: neighbours in memory, of similar length.

    One more place of the longest is one more for every row of a group, so a request joins where
    that costs less than a call. On a GPU, where calls are dear and places cheap, and with few
    shapes, where scratch has one place for all, neighbours always share.
    """
    memory = requests[0].memory
    always_joins = memory.has_few_shapes or memory.keys.device.type != "cpu"
    groups: list[slice] = []
    longest = num_rows = 0
    for index, request in enumerate(requests):
        padding = max(0, request.length - longest) * num_rows
        padding += max(0, longest - request.length) * request.num_rows
        adjoins = index > 0 and requests[index - 1].rows.stop == request.rows.start
        if adjoins and (always_joins or padding <= _CALL_PLACES):
            groups[-1] = slice(groups[-1].start, index + 1)
            longest, num_rows = max(longest, request.length), num_rows + request.num_rows
        else:
            groups.append(slice(index, index + 1))
            longest, num_rows = request.length, request.num_rows
    return groups


class CachedRun:
    """Attention of new tokens in adjoining rows of the cache.

    Attributes:
        bias: Added to the scores, -inf where a place is hidden; None where none is.
    """

    def __init__(self, memory: KVCache, span: Span) -> None:
        layers = [
            (keys[span.rows], values[span.rows])
            for keys, values in zip(memory.keys, memory.values, strict=True)
        ]
        own, stop = span.own, span.own.stop
        self._own = [(keys[:, :, own], values[:, :, own]) for keys, values in layers]
        self._seen = [(keys[:, :, :stop], values[:, :, :stop]) for keys, values in layers]
        self.bias = None if bool(span.mask.all()) else memory.bias(span.mask)

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
        spans: Rows, places and masks, in the order of the batch; each is one call.
    """

    def __init__(self, memory: KVCache, spans: Sequence[Span]) -> None:
        self.memory, self.spans = memory, spans
        self._sizes = [span.rows.stop - span.rows.start for span in spans]

    @cached_property
    def runs(self) -> Sequence[CachedRun]:
        """Views and masks, made once a block and used by every flow evaluation."""
        return [CachedRun(self.memory, span) for span in self.spans]

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attention output of one layer."""
        if len(self.runs) == 1:
            return self.runs[0](layer, query, key, value)
        parts = zip(*(tensor.split(self._sizes) for tensor in (query, key, value)), strict=True)
        return torch.cat([run(layer, *part) for run, part in zip(self.runs, parts, strict=True)])
