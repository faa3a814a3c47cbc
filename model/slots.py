"""Static slots: keys and values of a fixed number of requests in memory that never moves.

A slot holds the two rows of a request, conditional and unconditional. Its places are
`[pending block | current block | prefix | clean blocks]`: scratch comes first, so that a pass over
short caches is a pass over the front of the same memory, and a captured graph stays valid however
far the caches have grown.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from model.attention import attend_few
from model.config import ModelConfig
from model.kv_cache import KVCache

ROWS = 2
"""Rows of a slot; without guidance the second computes what nothing reads."""
_GRANULE = 64
"""Places by which memory is rounded up: attention kernels ask for aligned rows of their mask."""


class NoSlotError(RuntimeError):
    """Every slot is taken."""


class SlotSizeError(ValueError):
    """A request needs more than slots are made for.

    Attributes:
        what: Of which it needs more: text, frames or evaluations.
    """

    def __init__(self, what: str, message: str) -> None:
        super().__init__(message)
        self.what = what


@dataclass(frozen=True)
class SlotPlan:
    """What a sampler with static slots is built for.

    Attributes:
        num_slots: Requests at a time.
        num_text: Tokens of the longest prefix.
        num_frames: Frames of the longest audio, a prompt included.
        num_evaluations: Evaluations of a block at most.
        uses_graphs: Capture CUDA graphs; ignored on a CPU.
        compiles: Compile every pass before it is captured. Takes minutes at the start.
    """

    num_slots: int
    num_text: int
    num_frames: int
    num_evaluations: int = 64
    uses_graphs: bool = True
    compiles: bool = False

    def __post_init__(self) -> None:
        if min(self.num_slots, self.num_text, self.num_frames) < 1 or self.num_evaluations < 4:
            raise ValueError(f"{self}: sizes must be positive, and num_evaluations at least 4")


@dataclass
class SlotCache(KVCache):
    """The cache of one request, as views into its slot."""

    slot: int = 0

    def _grow_to(self, needed: int) -> None:
        # What a request may grow to was checked when it took the slot.
        assert needed <= self.keys.shape[3], f"{needed} places of {self.keys.shape[3]}"


class Slots:
    """Memory of all slots."""

    def __init__(
        self, config: ModelConfig, plan: SlotPlan, device: torch.device, dtype: torch.dtype
    ) -> None:
        backbone = config.backbone
        self.frames = config.frames_per_block
        self.scratch = 2 * self.frames
        blocks = -(-plan.num_frames // self.frames)
        if config.window_blocks is not None:
            blocks = min(blocks, config.window_blocks)
        needed = self.scratch + plan.num_text + blocks * self.frames
        self.size = -(-needed // _GRANULE) * _GRANULE
        shape = (
            backbone.num_layers,
            ROWS * plan.num_slots,
            backbone.num_kv_heads,
            self.size,
            backbone.head_dim,
        )
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros_like(self.keys)
        self.num_slots = plan.num_slots
        self._free = list(range(plan.num_slots))

    def take(self, cache: KVCache) -> SlotCache:
        """Move a request into the first free slot.

        Raises:
            NoSlotError: If there is none.
        """
        if not self._free:
            raise NoSlotError(f"all {self.num_slots} slots are taken")
        slot = heapq.heappop(self._free)
        views: list[Tensor] = []
        for memory, own in ((self.keys, cache.keys), (self.values, cache.values)):
            # Zeros, not what the last request left: a masked place counts 0 x itself.
            memory[:, ROWS * slot : ROWS * (slot + 1)].zero_()
            rows = slice(ROWS * slot, ROWS * slot + cache.num_rows)
            view = memory[:, rows, :, self.scratch :]
            view[:, :, :, : cache.num_slots] = own[:, :, :, : cache.num_slots]
            views.append(view)
        keys, values = views
        return SlotCache(
            keys,
            values,
            left_padding=cache.left_padding,
            prefix_slots=cache.prefix_slots,
            frames_per_block=cache.frames_per_block,
            window_blocks=cache.window_blocks,
            num_blocks=cache.num_blocks,
            slot=slot,
        )

    def release(self, slot: int) -> None:
        """Free a slot."""
        assert slot not in self._free, slot
        heapq.heappush(self._free, slot)

    def scratch_block(self, cache: SlotCache, index: int) -> tuple[Tensor, Tensor]:
        """Keys and values of the pending block (0) or the current one (1) of a request."""
        rows = slice(ROWS * cache.slot, ROWS * cache.slot + cache.num_rows)
        span = slice(index * self.frames, (index + 1) * self.frames)
        return self.keys[:, rows, :, span], self.values[:, rows, :, span]

    def width_for(self, num_places: int) -> int:
        """Places of a pass that covers so many: few widths, since each is a graph of its own."""
        width = _GRANULE
        while width < num_places:
            width *= 2
        return min(width, self.size)

    def rows_for(self, num_slots: int) -> int:
        """Slots of a pass that covers the first so many, again of few kinds."""
        return min(self.num_slots, 1 << (num_slots - 1).bit_length())


class SlotAttention:
    """Attention of new tokens over the front of the slots, written into scratch on the way.

    Args:
        slots: Memory.
        num_rows: Rows of the pass.
        own: Places of the new tokens.
        bias: What is added to the scores, -inf where a place is hidden.
    """

    def __init__(
        self,
        slots: Slots,
        num_rows: int,
        own: slice,
        bias: Float[Tensor, "batch 1 queries keys"],
    ) -> None:
        self._slots, self._num_rows, self._own, self._bias = slots, num_rows, own, bias

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attention output of one layer."""
        seen: list[Tensor] = []
        for memory, new in ((self._slots.keys, key), (self._slots.values, value)):
            places = memory[layer, : self._num_rows, :, : self._bias.shape[-1]]
            places[:, :, self._own].copy_(new)
            seen.append(places)
        keys, values = seen
        return attend_few(query, keys, values, self._bias)
