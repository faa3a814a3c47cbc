"""Key-value cache of clean tokens: preallocated rows that all requests of a sampler share.

A request holds one row, or two under guidance: conditional, then unconditional. The places of a
row are `[left padding | prefix | clean blocks | free]`.

A step works on scratch places behind its rows (`model.inference.step_cache`); no step copies a
cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from model.attention import few_bias
from model.config import ModelConfig

KeysValues = tuple[Tensor, Tensor]
"""Keys and values of some tokens, `layers rows kv_heads tokens head_dim` each."""

_LEAST_START = 64
"""First place of scratch where shapes are few."""
_SCRATCH_BLOCKS = 2
"""Blocks of scratch that a row has room for behind its own: pending and current."""


class CacheFullError(RuntimeError):
    """The memory that a request needs is taken by others; it fits when some of them have ended."""


class CacheSizeError(ValueError):
    """A request needs more memory than the whole cache may give it."""


@dataclass(frozen=True)
class CacheSize:
    """Fixed size of a cache.

    Attributes:
        num_rows: Rows of all requests together; a guided request takes two.
        num_tokens: Tokens of a row: the longest prefix, prompt and audio, and two blocks of
            scratch.
        has_few_shapes: Place scratch at powers of two, so that the passes of a block have few
            shapes, each of which can be captured as a CUDA graph; rows are then rounded up to hold
            it.
    """

    num_rows: int
    num_tokens: int
    has_few_shapes: bool = False

    def __post_init__(self) -> None:
        if self.num_rows < 2 or self.num_tokens < 1:
            raise ValueError(f"{self}: it needs at least 2 rows and 1 token")


class KVCache:
    """Memory of the rows, with a record of the free ones.

    Args:
        config: Shapes of the model.
        device: Device of the memory.
        dtype: Dtype of the keys and values.
        size: Allocate this much and never more. None grows when a request is opened that does not
            fit; steps never grow it.
        max_bytes: Memory up to which a cache without `size` grows; while it does, half as much
            again holds the old keys or values. None is no limit.

    Attributes:
        keys: After norm and rotary embedding.
        values: As projected.
        num_releases: How often rows were released; more room than before needs another release.
    """

    keys: Float[Tensor, "layers rows kv_heads tokens head_dim"]
    values: Float[Tensor, "layers rows kv_heads tokens head_dim"]

    def __init__(
        self,
        config: ModelConfig,
        device: torch.device,
        dtype: torch.dtype,
        size: CacheSize | None = None,
        max_bytes: int | None = None,
    ) -> None:
        self._max_bytes = max_bytes
        self.num_releases = 0
        self.frames_per_block = config.frames_per_block
        self._backbone = config.backbone
        self._is_fixed = size is not None
        self.has_few_shapes = size is not None and size.has_few_shapes
        self._owners: list[CacheRows | None] = [None] * (size.num_rows if size else 0)
        num_tokens = size.num_tokens if size else 0
        if self.has_few_shapes:
            num_tokens = self._few(num_tokens) + _SCRATCH_BLOCKS * self.frames_per_block
        self.keys, self.values = (self._allocate(num_tokens, device, dtype) for _ in range(2))

    @property
    def num_tokens(self) -> int:
        """Places of a row."""
        return self.keys.shape[3]

    @property
    def size_bytes(self) -> int:
        """Memory of all rows, free ones included."""
        return 2 * self.keys.numel() * self.keys.element_size()

    def take(
        self, prefix: KeysValues, left_padding: tuple[int, ...], *, num_blocks: int
    ) -> CacheRows:
        """Rows for a request, filled with its prefix and prompt; `release` must follow.

        Args:
            prefix: Keys and values of prefix and prompt; the rows end together.
            left_padding: Places before the prefix of each row.
            num_blocks: Blocks that the request may add.

        Raises:
            CacheSizeError: If even an empty cache could not hold the request.
            CacheFullError: If it does not fit beside the present requests.
        """
        num_rows, length = len(left_padding), prefix[0].shape[3]
        needed = length + (num_blocks + _SCRATCH_BLOCKS) * self.frames_per_block
        first = self._reserve(num_rows, needed)
        rows = CacheRows(self, slice(first, first + num_rows), left_padding, length, length, needed)
        self._owners[rows.rows] = [rows] * num_rows
        for memory, given in zip((self.keys, self.values), prefix, strict=True):
            if self.has_few_shapes:
                # Passes over all rows touch these too, whether or not their request takes part.
                memory[:, rows.rows].zero_()
            memory[:, rows.rows, :, :length] = given
        return rows

    def release(self, rows: CacheRows) -> None:
        """Free the rows of a request."""
        assert all(owner is rows for owner in self._owners[rows.rows]), rows.rows
        self._owners[rows.rows] = [None] * rows.num_rows
        self.num_releases += 1

    def scratch_start(self, requests: Sequence[CacheRows]) -> int:
        """The place behind rows that step together where their blocks stand."""
        if not self.has_few_shapes:
            return max(request.length for request in requests)
        # Behind all rows, since a pass writes scratch in those that take no part as well.
        return self._few(max(owner.length for owner in self._owners if owner is not None))

    def bias(
        self, mask: Bool[Tensor, " rows #seq places"]
    ) -> Float[Tensor, "rows 1 queries places"]:
        """Attention bias for `attend_few`, from the places that queries may see."""
        groups = self._backbone.num_heads // self._backbone.num_kv_heads
        return few_bias(mask.to(self.keys.device), groups, self.keys.dtype)

    def scratch_starts(self) -> list[int]:
        """Every place at which scratch may stand, with few shapes."""
        assert self.has_few_shapes
        last = self.num_tokens - _SCRATCH_BLOCKS * self.frames_per_block
        starts = [_LEAST_START]
        while starts[-1] < last:
            starts.append(2 * starts[-1])
        return starts

    @staticmethod
    def _few(num_tokens: int) -> int:
        return max(_LEAST_START, 1 << (num_tokens - 1).bit_length())

    def _first_free(self, num_rows: int) -> int | None:
        """The lowest free rows. Pairs stand at even places, so single rows never split them all:
        with 2 n rows, n requests of any kind fit."""
        for first in range(0, len(self._owners) - num_rows + 1, num_rows):
            if not any(self._owners[first : first + num_rows]):
                return first
        return None

    def _reserve(self, num_rows: int, num_tokens: int) -> int:
        """Index of the first free rows; grows the memory, or raises if its size is fixed."""
        first, is_short = self._first_free(num_rows), num_tokens > self.num_tokens
        if self._is_fixed and is_short:
            raise CacheSizeError(
                f"the request needs {num_tokens} tokens of cache with its prefix; a row holds "
                f"{self.num_tokens}; shorten the text or the audio"
            )
        if self._is_fixed and first is None:
            raise CacheFullError(
                f"all {len(self._owners)} rows of the cache are taken; close a request first"
            )
        if first is None or is_short:
            self._resize(num_rows, num_tokens)
            first = self._first_free(num_rows)
        assert first is not None
        return first

    def _resize(self, num_rows: int, num_tokens: int) -> None:
        """Make room for a request beside the present ones.

        Rows get longer only, unless the memory is bounded and shorter ones are long enough.
        """
        used = [owner for owner in self._owners if owner is not None]
        num_used = max((owner.rows.stop for owner in used), default=0)
        rows = num_used + (-num_used) % num_rows + num_rows
        if (first := self._first_free(num_rows)) is not None:
            rows = max(num_used, first + num_rows)
        tokens = max(num_tokens, self.num_tokens if used else 0)
        if not self._fits(rows, tokens):
            tokens = max(num_tokens, *(owner.num_places for owner in used), 0)
        if not self._fits(rows, tokens):
            needed = f"the request needs {num_rows} rows of {tokens} tokens of cache"
            if used:
                raise CacheFullError(f"{needed} beside the present ones; close a request first")
            raise CacheSizeError(
                f"{needed}, {self._row_bytes(tokens) * num_rows} bytes; the whole cache has "
                f"{self._max_bytes}: shorten the text or the audio"
            )
        # Twice the rows, so that opening many requests copies each a bounded number of times.
        while rows < 2 * num_used and self._fits(rows + 1, tokens):
            rows += 1
        self._owners = self._owners[:num_used] + [None] * (rows - num_used)
        for owner in used:
            owner.num_ready = min(owner.num_ready, tokens)
        # One after the other, so that no more than half of the old memory is there twice.
        self.keys = self._resized(self.keys, num_used, tokens)
        self.values = self._resized(self.values, num_used, tokens)

    def _fits(self, num_rows: int, num_tokens: int) -> bool:
        """Whether memory of that shape is within the bound."""
        return self._max_bytes is None or num_rows * self._row_bytes(num_tokens) <= self._max_bytes

    def _row_bytes(self, num_tokens: int) -> int:
        """Memory of the keys and values of a row."""
        backbone = self._backbone
        values = backbone.num_layers * backbone.num_kv_heads * num_tokens * backbone.head_dim
        return 2 * values * self.keys.element_size()

    def _resized(self, old: Tensor, num_used: int, num_tokens: int) -> Tensor:
        """Memory of the present number of rows, of which the first hold what they held."""
        new = self._allocate(num_tokens, old.device, old.dtype)
        both = slice(min(num_tokens, old.shape[3]))
        new[:, :num_used, :, both] = old[:, :num_used, :, both]
        return new

    def _allocate(self, num_tokens: int, device: torch.device, dtype: torch.dtype) -> Tensor:
        """Memory of all rows with so many places."""
        backbone = self._backbone
        shape = (
            backbone.num_layers,
            len(self._owners),
            backbone.num_kv_heads,
            num_tokens,
            backbone.head_dim,
        )
        # Where zeros are not needed, a CPU commits memory when it is first written.
        new = torch.zeros if self.has_few_shapes else torch.empty
        return new(shape, device=device, dtype=dtype)


@dataclass(eq=False)
class CacheRows:
    """The rows of one request.

    Attributes:
        memory: The cache they belong to.
        rows: Which rows.
        left_padding: Places before the prefix of each row; they are hidden.
        length: Places in use, padding included.
        num_ready: Places that hold finite values, visible or not: a hidden place is multiplied
            by zero, and 0 x NaN is NaN.
        num_places: Places that the request may come to use.
    """

    memory: KVCache
    rows: slice
    left_padding: tuple[int, ...]
    length: int
    num_ready: int
    num_places: int

    @property
    def num_rows(self) -> int:
        """1, or 2 under guidance."""
        return len(self.left_padding)

    def make_ready(self, start: int, end: int) -> None:
        """Give finite values to all places before `end`; those from `start` on are about to be
        written."""
        if self.num_ready < start:
            for memory in (self.memory.keys, self.memory.values):
                memory[:, self.rows, :, self.num_ready : start].zero_()
        self.num_ready = max(self.num_ready, end)

    def append(self, start: int) -> None:
        """Keep the scratch block at place `start` as the next clean block."""
        frames, end = self.memory.frames_per_block, self.length
        if start != end:
            for memory in (self.memory.keys, self.memory.values):
                # A copy first: the places may overlap.
                block = memory[:, self.rows, :, start : start + frames].clone()
                memory[:, self.rows, :, end : end + frames] = block
        self.length += frames

    def visible(self, num_places: int) -> Bool[Tensor, "rows places"]:
        """Which of the first places hold the prefix or a clean block."""
        place = torch.arange(num_places)
        return (place < self.length) & (place >= torch.tensor(self.left_padding)[:, None])
