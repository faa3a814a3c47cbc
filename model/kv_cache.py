"""Keys and values of clean tokens, as an explicit value of every request.

Only finished audio and the prefix are kept: the keys of a noisy block live in scratch slots
behind the cache for the length of one step, and the next block overwrites them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from model.attention import attend, attend_few, few_bias

_GROWTH = 1.5
"""Factor by which a full cache grows, so that appending copies each slot a bounded number of
times."""


KeysValues = tuple[Tensor, Tensor]
"""Keys and values, `layers rows kv_heads slots head_dim` each."""


@dataclass
class KVCache:
    """Cache of one request: a conditional row, and an unconditional one under guidance.

    Slots are `[prefix | clean blocks]`. A shorter prefix is padded on the left, so audio slots of
    the rows align. With a window the blocks form a ring of `window_blocks`.

    Attributes:
        keys: After norm and rotary embedding.
        values: As projected.
        left_padding: Slots before the prefix of every row.
        prefix_slots: Slots of the prefix, padding included.
        frames_per_block: Slots of a block.
        window_blocks: Blocks kept, None for all.
        num_blocks: Clean blocks written so far, those that left the ring included.
    """

    keys: Float[Tensor, "layers rows kv_heads slots head_dim"]
    values: Float[Tensor, "layers rows kv_heads slots head_dim"]
    left_padding: tuple[int, ...]
    prefix_slots: int
    frames_per_block: int
    window_blocks: int | None
    num_blocks: int = 0

    @property
    def num_rows(self) -> int:
        """1, or 2 under guidance."""
        return self.keys.shape[1]

    @property
    def num_slots(self) -> int:
        """Slots in use."""
        kept = self.num_blocks
        if self.window_blocks is not None:
            kept = min(kept, self.window_blocks)
        return self.prefix_slots + kept * self.frames_per_block

    @property
    def size_bytes(self) -> int:
        """Memory it takes, free slots included."""
        return 2 * self.keys.numel() * self.keys.element_size()

    def reserve(self, num_slots: int) -> None:
        """Make room for that many slots behind those in use."""
        self._grow_to(self.num_slots + num_slots)

    def _grow_to(self, needed: int) -> None:
        capacity = self.keys.shape[3]
        if needed <= capacity:
            return
        grown = max(needed, int(_GROWTH * capacity))
        self.keys, self.values = (
            # Zeros, not garbage: a masked slot is multiplied by zero, and 0 x NaN is NaN.
            torch.cat([old, old.new_zeros(*old.shape[:3], grown - capacity, old.shape[4])], dim=3)
            for old in (self.keys, self.values)
        )

    def append(
        self,
        keys: Float[Tensor, "layers rows kv_heads block_frames head_dim"],
        values: Float[Tensor, "layers rows kv_heads block_frames head_dim"],
    ) -> None:
        """Add a clean block; with a full window it takes the place of the oldest.

        Nothing is copied where the tensors already are the slots that follow.
        """
        slot = self.prefix_slots + self._ring_index(self.num_blocks) * self.frames_per_block
        end = slot + self.frames_per_block
        self._grow_to(end)
        for own, block in ((self.keys, keys), (self.values, values)):
            place = own[:, :, :, slot:end]
            if place.data_ptr() != block.data_ptr():
                place.copy_(block)
        self.num_blocks += 1

    def visible_slots(self, num_slots: int, hides_oldest: bool) -> Bool[Tensor, "rows slots"]:
        """Slots that the next block may see, padded with False to `num_slots`.

        Args:
            num_slots: Width of the result, at least those in use.
            hides_oldest: Leave out the block that the window drops when one more is written.
        """
        slot = torch.arange(num_slots)
        visible = (slot < self.num_slots).repeat(self.num_rows, 1)
        visible &= slot >= torch.tensor(self.left_padding)[:, None]
        is_full = self.window_blocks is not None and self.num_blocks >= self.window_blocks
        if hides_oldest and is_full:
            oldest = self._ring_index(self.num_blocks) * self.frames_per_block
            start = self.prefix_slots + oldest
            visible[:, start : start + self.frames_per_block] = False
        return visible

    def _ring_index(self, block: int) -> int:
        return block if self.window_blocks is None else block % self.window_blocks


class PrefillAttention:
    """Attention over `[prefix | prompt blocks]` that keeps what it saw for the cache."""

    def __init__(self, mask: Bool[Tensor, "batch seq seq"]) -> None:
        self.mask = mask
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attention output of the next layer."""
        self._keys.append(key)
        self._values.append(value)
        return attend(query, key, value, self.mask)

    def kept(self) -> KeysValues:
        """Keys and values of all layers, `layers rows kv_heads slots head_dim`."""
        return torch.stack(self._keys), torch.stack(self._values)


def filled_cache(
    kept: KeysValues,
    left_padding: tuple[int, ...],
    prefix_slots: int,
    frames_per_block: int,
    window_blocks: int | None,
) -> KVCache:
    """The cache after a prefill, with room for the blocks of one step."""
    keys, values = kept
    num_blocks = (keys.shape[3] - prefix_slots) // frames_per_block
    cache = KVCache(
        keys[:, :, :, :prefix_slots],
        values[:, :, :, :prefix_slots],
        left_padding,
        prefix_slots,
        frames_per_block,
        window_blocks,
    )
    written = num_blocks if window_blocks is None else min(num_blocks, window_blocks)
    cache.reserve((written + 2) * frames_per_block)
    for block in range(num_blocks):
        start = prefix_slots + block * frames_per_block
        span = slice(start, start + frames_per_block)
        cache.append(keys[:, :, :, span], values[:, :, :, span])
    return cache


def aligned(rows: Sequence[KeysValues]) -> KeysValues:
    """Prefixes of different length as rows that end together, zeros before the shorter ones."""
    longest = max(keys.shape[3] for keys, _ in rows)
    keys, values = (
        torch.cat([F.pad(row[i], (0, 0, longest - row[i].shape[3], 0)) for row in rows], dim=1)
        for i in range(2)
    )
    return keys, values


class StepCache:
    """The caches of requests that step together, with scratch slots for the step's blocks.

    Slots are `[caches | pending block | current block]`; the pending slots exist only where some
    request still has to write its last block. One request alone works in its own cache, without
    a copy; several are copied side by side once a step, padded to the longest.
    """

    def __init__(self, caches: Sequence[KVCache], has_pending: Sequence[bool]) -> None:
        self._caches = caches
        self._has_pending = has_pending
        self._frames = caches[0].frames_per_block
        self._num_pending = self._frames if any(has_pending) else 0
        self._start = max(cache.num_slots for cache in caches)
        self._block_start = self._start + self._num_pending
        self._end = self._block_start + self._frames
        if len(caches) == 1:
            caches[0].reserve(self._end - self._start)
            self.keys, self.values = caches[0].keys, caches[0].values
        else:
            self.keys = self._side_by_side([cache.keys for cache in caches])
            self.values = self._side_by_side([cache.values for cache in caches])
        masks = [self._masks(i) for i in range(len(caches))]
        self._block_mask = torch.cat([block for block, _ in masks])[:, None]
        self._pending_mask = torch.cat([pending for _, pending in masks])[:, None]

    def block_attention(self) -> CachedAttention:
        """Attention of the current block alone, noisy or clean."""
        return CachedAttention(self, self._block_start, self._end, self._block_mask)

    def fused_attention(self) -> CachedAttention:
        """Attention of the pending clean block followed by the current noisy block."""
        masks = (self._pending_mask, self._block_mask)
        mask = torch.cat([mask.expand(-1, self._frames, -1) for mask in masks], dim=1)
        return CachedAttention(self, self._start, self._end, mask)

    def commit(self, has_clean_block: bool) -> None:
        """Append the pending blocks to their caches, and the current one if it is clean."""
        row = 0
        for cache, has_pending in zip(self._caches, self._has_pending, strict=True):
            rows = slice(row, row + cache.num_rows)
            row += cache.num_rows
            if has_pending:
                self._append(cache, rows, self._start)
            if has_clean_block:
                self._append(cache, rows, self._block_start)

    def _append(self, cache: KVCache, rows: slice, start: int) -> None:
        span = slice(start, start + self._frames)
        cache.append(self.keys[:, rows, :, span], self.values[:, rows, :, span])

    def _side_by_side(self, parts: list[Tensor]) -> Tensor:
        layers, _, heads, _, width = parts[0].shape
        rows = sum(part.shape[1] for part in parts)
        joined = parts[0].new_zeros(layers, rows, heads, self._end, width)
        row = 0
        for part, cache in zip(parts, self._caches, strict=True):
            used = cache.num_slots
            joined[:, row : row + cache.num_rows, :, :used] = part[:, :, :, :used]
            row += cache.num_rows
        return joined

    def _masks(self, index: int) -> tuple[Tensor, Tensor]:
        """What the current and the pending block of one request see."""
        cache, has_pending = self._caches[index], self._has_pending[index]
        block = cache.visible_slots(self._end, hides_oldest=has_pending)
        block[:, self._start : self._block_start] = has_pending
        block[:, self._block_start :] = True
        pending = cache.visible_slots(self._end, hides_oldest=False)
        # A request without a pending block computes one of no meaning, which nothing reads.
        pending[:, self._start : self._block_start] = True
        return block, pending


class CachedAttention:
    """Attention of new tokens over a `StepCache`, written into its scratch slots on the way."""

    def __init__(
        self,
        cache: StepCache,
        start: int,
        end: int,
        mask: Bool[Tensor, "batch #seq slots"],
    ) -> None:
        # Views and mask are made once a block; every flow evaluation goes through them again.
        self._own = [
            (keys[:, :, start:end], values[:, :, start:end])
            for keys, values in zip(cache.keys, cache.values, strict=True)
        ]
        self._seen = [
            (keys[:, :, :end], values[:, :, :end])
            for keys, values in zip(cache.keys, cache.values, strict=True)
        ]
        visible = mask[:, :, :end]
        self._mask = None if bool(visible.all()) else visible.to(cache.keys.device)
        self._bias: Tensor | None = None

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attention output of one layer."""
        own_keys, own_values = self._own[layer]
        own_keys.copy_(key)
        own_values.copy_(value)
        if self._mask is not None and self._bias is None:
            groups = query.shape[1] // key.shape[1]
            self._bias = few_bias(self._mask, groups, query.dtype)
        return attend_few(query, *self._seen[layer], self._bias)
