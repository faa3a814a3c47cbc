"""The backbone on a GPU with its passes captured as CUDA graphs: one launch a pass.

Everything that changes between passes of one shape is copied into buffers that never move. A pass
runs all rows of the cache up to the last one that takes part; the output of the others is unused.
Rows and places come in few sizes, so all shapes can be captured before a server reports ready.
Capture itself has not run on a GPU yet; the rest is tested on a CPU.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Real
from torch import Tensor

from model.attention import Attend
from model.backbone import Backbone
from model.experts import Route
from model.inference.cache import KVCache
from model.inference.step_cache import CachedAttention, Span
from model.rotary import Rotary

_WARM_UPS = 2
"""Runs before a capture, in which libraries choose kernels and allocate workspace."""
_ROW_FACTOR = 4
"""Ratio of neighbouring row counts: 2, 8, 32, ..."""

Capture = Callable[[Callable[[], None]], Callable[[], None]]
"""Makes a function that repeats the work of a function without arguments."""


class _Shape(NamedTuple):
    """Shape of a pass: rows, scratch places of the new tokens, and whether the expert runs."""

    num_rows: int
    start: int
    stop: int
    uses_expert: bool


class GraphBackbone:
    """`Backbone` for a sampler whose cache has few shapes; other passes run uncaptured.

    Args:
        backbone: The backbone; its weights must not change.
        cache: The cache of the sampler, `has_few_shapes`.
        capture: Defaults to CUDA graphs; a test on a CPU passes the function through.
    """

    def __init__(self, backbone: Backbone, cache: KVCache, capture: Capture | None = None) -> None:
        if not cache.has_few_shapes:
            raise ValueError("the cache has too many shapes; build it with has_few_shapes")
        self._backbone, self._cache = backbone, cache
        self._capture = capture or CudaCapture()
        self._passes: dict[_Shape, _CapturedPass] = {}

    @property
    def num_captured(self) -> int:
        """Shapes captured so far."""
        return len(self._passes)

    @torch.inference_mode()
    def warm_up(self) -> None:
        """Capture every shape; minutes for a large model. No request may be open."""
        frames, total = self._cache.frames_per_block, self._cache.keys.shape[1]
        counts = sorted({self._num_rows(last) for last in range(total)})
        experts = {False, any(layer.expert is not None for layer in self._backbone.layers)}
        for num_rows, start, skipped, uses_expert in itertools.product(
            counts, self._cache.scratch_starts(), (0, frames), experts
        ):
            self._pass(_Shape(num_rows, start + skipped, start + 2 * frames, uses_expert))

    def rotary(self, position: Real[Tensor, "batch seq"], dtype: torch.dtype) -> list[Rotary]:
        """Angles of positions for a pass, layer by layer."""
        return self._backbone.rotary(position, dtype)

    def __call__(
        self,
        embeddings: Float[Tensor, "batch seq hidden"],
        rotary: Sequence[Rotary],
        attend: Attend,
        route: Route | None = None,
    ) -> Float[Tensor, "batch seq hidden"]:
        """Normalised hidden states."""
        if not isinstance(attend, CachedAttention):
            return self._backbone(embeddings, rotary, attend, route)
        num_rows = self._num_rows(max(span.rows.stop for span in attend.spans) - 1)
        own = attend.spans[0].own  # with few shapes, that of all
        shape = _Shape(num_rows, own.start, own.stop, route is not None)
        return self._pass(shape).run(embeddings, rotary[0], attend, route)

    def _num_rows(self, last: int) -> int:
        """Rows of the smallest shape that covers row `last`."""
        num_rows = 2
        while num_rows <= last:
            num_rows *= _ROW_FACTOR
        return min(num_rows, self._cache.keys.shape[1])

    def _pass(self, shape: _Shape) -> _CapturedPass:
        if shape not in self._passes:
            self._passes[shape] = _CapturedPass(self._backbone, self._cache, shape, self._capture)
        return self._passes[shape]


class _CapturedPass:
    """The pass of one shape and its buffers, with an entry for each row of the cache."""

    def __init__(self, backbone: Backbone, cache: KVCache, shape: _Shape, capture: Capture) -> None:
        num_tokens, config = shape.stop - shape.start, backbone.config
        self._cache = cache

        def zeros(*sizes: int) -> Tensor:
            """Buffer with an entry for each row."""
            return cache.keys.new_zeros(shape.num_rows, *sizes)

        self._embeddings = zeros(num_tokens, config.hidden_dim)
        self._hidden = zeros(num_tokens, config.hidden_dim)
        self._cosine, self._sine = (zeros(1, num_tokens, config.head_dim) for _ in range(2))
        self._routed = zeros(1, 1)
        # Rows that take no part see their own new tokens, so that their output stays finite.
        self._idle = torch.zeros(shape.num_rows, num_tokens, shape.stop, dtype=torch.bool)
        self._idle[:, :, shape.start :] = True
        own = slice(shape.start, shape.stop)
        attention = CachedAttention(cache, [Span(slice(0, shape.num_rows), own, self._idle)])
        self._bias = attention.runs[0].bias
        angles = [Rotary(self._cosine, self._sine)] * config.num_layers
        route = Route(None, rows=self._routed) if shape.uses_expert else None
        self._filled_for: Attend | None = None
        self._rows = torch.zeros(0, dtype=torch.int64)

        def forward() -> None:
            """The work that is captured: a pass over the buffers."""
            self._hidden.copy_(backbone(self._embeddings, angles, attention, route))

        self._replay = capture(forward)

    def run(
        self, embeddings: Tensor, angles: Rotary, attend: CachedAttention, route: Route | None
    ) -> Float[Tensor, "rows seq hidden"]:
        """States of the rows that take part."""
        if attend is not self._filled_for:
            self._fill(angles, attend, route)
        self._embeddings[self._rows] = embeddings
        self._replay()
        return self._hidden[self._rows]

    def _fill(self, angles: Rotary, attend: CachedAttention, route: Route | None) -> None:
        """Copy what all evaluations of a block share."""
        spans = attend.spans
        rows = [row for span in spans for row in range(span.rows.start, span.rows.stop)]
        self._rows = torch.tensor(rows, device=self._hidden.device)
        self._embeddings.zero_()
        self._cosine[self._rows], self._sine[self._rows] = angles
        mask = self._idle.clone()
        seen = torch.cat([span.mask for span in spans])
        mask[rows] = seen.expand(-1, mask.shape[1], -1)
        assert self._bias is not None
        self._bias.copy_(self._cache.bias(mask))
        self._routed.zero_()
        if route is not None:
            flags = self._routed.new_ones(len(rows) * mask.shape[1])
            if route.tokens is not None:
                flags.zero_()[route.tokens] = 1
            self._routed[self._rows] = flags.view(len(rows), -1)[:, :1, None]
        self._filled_for = attend


class CudaCapture:
    """Captures work as CUDA graphs, which run one after the other and so share their memory."""

    def __init__(self) -> None:
        self._pool: Any = None

    def __call__(self, work: Callable[[], None]) -> Callable[[], None]:
        """A graph of the work; it must only touch memory that does not move."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UPS):
                work()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            work()
        self._pool = graph.pool()
        return graph.replay
