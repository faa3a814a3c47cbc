"""Attention of the blocks of a step over the cached rows of their requests.

The blocks stand in scratch places behind the longest row of the step, `[pending | current]`: the
clean block of the step before, whose keys are still missing, and the block being generated. Every
flow evaluation overwrites the current block, so noisy keys never enter the cache. When the step
ends, clean blocks move from scratch to the end of their row; where they already stand there,
nothing is copied.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

from model.attention import attend_few, few_bias
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
        self._start = max(request.length for request in requests)
        self._block_start = self._start + (frames if any(has_pending) else 0)
        self._end = self._block_start + frames
        for request in requests:
            request.make_ready(self._start, self._end)
        self._masks = [self._visible(*pair) for pair in zip(requests, has_pending, strict=True)]

    def block_attention(self, num_requests: int) -> CachedAttention:
        """Attention of the current blocks, noisy or clean, of the first so many requests."""
        spans = self._runs(num_requests)
        own = slice(self._block_start, self._end)
        return CachedAttention(
            _Run(self._memory, rows, own, torch.cat([self._masks[i][0] for i in members])[:, None])
            for rows, members in spans
        )

    def fused_attention(self) -> CachedAttention:
        """Attention of all pending clean blocks, each followed by its current block."""
        frames = self._memory.frames_per_block
        runs = []
        for rows, members in self._runs(len(self._requests)):
            block, pending = (torch.cat([self._masks[i][j] for i in members]) for j in (0, 1))
            mask = torch.stack([pending, block], dim=1).repeat_interleave(frames, dim=1)
            runs.append(_Run(self._memory, rows, slice(self._start, self._end), mask))
        return CachedAttention(runs)

    def commit(self, *, has_clean_block: bool) -> None:
        """Keep the pending blocks, and the current ones if they are clean."""
        for request, has_pending in zip(self._requests, self._has_pending, strict=True):
            if has_pending:
                request.append(self._start)
            if has_clean_block:
                request.append(self._block_start)

    def _runs(self, num_requests: int) -> list[tuple[slice, list[int]]]:
        """Requests whose rows adjoin in memory."""
        runs: list[tuple[slice, list[int]]] = []
        for index, request in enumerate(self._requests[:num_requests]):
            rows = request.rows
            if runs and runs[-1][0].stop == rows.start:
                last, members = runs.pop()
                rows, members = slice(last.start, rows.stop), [*members, index]
            else:
                members = [index]
            runs.append((rows, members))
        return runs

    def _visible(self, request: CacheRows, has_pending: bool) -> tuple[Tensor, Tensor]:
        """What the current and the pending block of a request see, `rows places` each."""
        block = request.visible(self._end, hides_oldest=has_pending)
        block[:, self._start : self._block_start] = has_pending
        block[:, self._block_start :] = True
        pending = request.visible(self._end, hides_oldest=False)
        # Without a pending block zeros are computed in its place; that output is unused.
        pending[:, self._start : self._block_start] = True
        return block, pending


class _Run:
    """Attention of new tokens in adjoining rows of the cache."""

    def __init__(
        self,
        memory: KVCache,
        rows: slice,
        own: slice,
        mask: Bool[Tensor, "rows #seq places"],
    ) -> None:
        # Views and mask are made once a block and used by every flow evaluation.
        layers = [
            (keys[rows], values[rows])
            for keys, values in zip(memory.keys, memory.values, strict=True)
        ]
        self._own = [(keys[:, :, own], values[:, :, own]) for keys, values in layers]
        self._seen = [(keys[:, :, : own.stop], values[:, :, : own.stop]) for keys, values in layers]
        self.num_rows = rows.stop - rows.start
        self._mask = None if bool(mask.all()) else mask.to(memory.keys.device)
        self._bias: Tensor | None = None

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        own_keys, own_values = self._own[layer]
        own_keys.copy_(key)
        own_values.copy_(value)
        if self._mask is not None and self._bias is None:
            groups = query.shape[1] // key.shape[1]
            self._bias = few_bias(self._mask, groups, query.dtype)
        return attend_few(query, *self._seen[layer], self._bias)


class CachedAttention:
    """Attention of new tokens over the cache; their keys and values go to their scratch places."""

    def __init__(self, runs: Iterable[_Run]) -> None:
        self._runs = list(runs)
        self._sizes = [run.num_rows for run in self._runs]

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attention output of one layer."""
        if len(self._runs) == 1:
            return self._runs[0](layer, query, key, value)
        parts = zip(*(tensor.split(self._sizes) for tensor in (query, key, value)), strict=True)
        return torch.cat([run(layer, *part) for run, part in zip(self._runs, parts, strict=True)])
