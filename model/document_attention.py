"""AR-Flow attention on a CPU: document by document, without most pairs that the mask forbids.

In a packed row about 95 % of the pairs of a dense mask belong to two documents, or to two copies.
Here prefix and clean frames of a document attend among themselves, and its noisy copies share the
prefix and clean keys; a noisy window adds only its own keys. Documents of like length share one
batched product. The result is that of `attention.arflow_mask` (tests/model/test_attention.py).

Axes: `documents` of one group, `prefix + clean` positions are the context, `copies`, `windows` of
`frames` noisy positions, `kv` key heads, `group` query heads that share a key head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from einops import rearrange
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn import functional

from model.attention import is_allowed
from model.sequence import NOISY

_WINDOW_FRAMES = 64
"""Noisy frames that share one product; more of them compute more forbidden pairs."""
_CONTEXT_STEP = 64
_WINDOW_STEP = 32
"""Contexts and windows are padded to multiples of these, so that few shapes occur. A CPU compiles a
bf16 product for each new shape; without padding nearly every group had one (docs/findings.md)."""
_LEAST_FILL = 0.8
"""Documents share a group while the shortest context fills this share of the longest."""

_Pair = Sequence[Tensor]
"""Rows of the context, and rows of the noisy copies."""


@dataclass(frozen=True)
class _Span:
    """Positions of one document in the flattened rows.

    Attributes:
        context: Prefix and clean frames.
        noisy: `copies frames`.
    """

    context: Tensor
    noisy: Tensor


@dataclass(frozen=True)
class _Group:
    """Documents that are computed together; index -1 is padding.

    Attributes:
        context: `documents context` positions.
        noisy: `documents copies windows frames` positions.
        context_mask: Which context keys a context query sees.
        noisy_context_mask: Which context keys a noisy query sees; the same for every copy.
        own_mask: Which keys of its own window a noisy query sees; the same for every copy.
    """

    context: Int[Tensor, "documents context"]
    noisy: Int[Tensor, "documents copies windows frames"]
    context_mask: Bool[Tensor, "documents context context"]
    noisy_context_mask: Bool[Tensor, "documents windows frames context"]
    own_mask: Bool[Tensor, "documents windows frames frames"]


class DocumentAttention:
    """Attention of a packed forward pass, the same for all layers.

    Args:
        document: Document of every position, negative on padding.
        segment: Prefix, clean or noisy.
        block: Block of audio, index of a prefix token.
        copy: Noisy copy.
        frames_per_block: Frames of a block; windows end on block edges.
    """

    def __init__(
        self,
        document: Int[Tensor, "batch seq"],
        segment: Int[Tensor, "batch seq"],
        block: Int[Tensor, "batch seq"],
        copy: Int[Tensor, "batch seq"],
        frames_per_block: int,
    ) -> None:
        indices = tuple(index.flatten() for index in (document, segment, block, copy))
        spans = sorted(_spans(document, segment), key=lambda s: (len(s.noisy), len(s.context)))
        window, step = (
            frames_per_block * max(1, frames // frames_per_block)
            for frames in (_WINDOW_FRAMES, _WINDOW_STEP)
        )
        self._groups = [_group(members, indices, window, step) for members in _alike(spans)]
        # Rows of all groups, one after the other, as positions; and where a position finds its row.
        rows = torch.cat([p.flatten() for g in self._groups for p in (g.context, g.noisy)])
        found = torch.full((document.numel(),), -1)
        is_used = rows >= 0
        found[rows[is_used]] = is_used.nonzero().squeeze(1)
        self._rows, self._found = _Order.of(rows), _Order.of(found)
        self._sizes = [p.numel() for g in self._groups for p in (g.context, g.noisy)]
        self._shape = document.shape

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attention output of any layer; 0 at positions without a document."""
        parts = []
        for heads in (query * query.shape[-1] ** -0.5, key, value):
            flat = rearrange(heads, "b h s d -> (b s) h d")
            parts.append(_reorder(flat, self._rows, self._found).split(self._sizes))
        outputs: list[Tensor] = []
        for number, group in enumerate(self._groups):
            pair = slice(2 * number, 2 * number + 2)
            outputs += _attend(group, *(part[pair] for part in parts))
        out = _reorder(torch.cat(outputs), self._found, self._rows)
        return rearrange(out.unflatten(0, self._shape), "b s h d -> b h s d")


@dataclass(frozen=True)
class _Order:
    """Rows to read, in order.

    Attributes:
        index: Row of the source; any where `missing`.
        missing: Places that read no row and hold 0.
    """

    index: Int[Tensor, " seq"]
    missing: Int[Tensor, " missing"]

    @staticmethod
    def of(rows: Int[Tensor, " seq"]) -> _Order:
        return _Order(rows.clamp_min(0), (rows < 0).nonzero().squeeze(1))

    def read(self, source: Tensor) -> Tensor:
        return source.index_select(0, self.index).index_fill_(0, self.missing, 0)


class _Reorder(torch.autograd.Function):
    """Rows in another order. Every row is read at most once, so the gradient is a gather too.

    The gradient of `index_select` adds row by row and takes several times as long.
    """

    @staticmethod
    def forward(ctx: Any, source: Tensor, order: _Order, back: _Order) -> Tensor:
        ctx.back = back
        return order.read(source)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return ctx.back.read(gradients[0]), None, None


def _reorder(source: Tensor, order: _Order, back: _Order) -> Tensor:
    return cast(Tensor, _Reorder.apply(source, order, back))


def _spans(document: Tensor, segment: Tensor) -> Iterator[_Span]:
    """Documents of all rows: a document is contiguous, its noisy copies at its end."""
    seq = document.shape[1]
    for row, (numbers, kinds) in enumerate(zip(document, segment, strict=True)):
        for number in range(int(numbers.max()) + 1):
            where = (numbers == number).nonzero().squeeze(1)
            is_noisy = kinds[where] == NOISY
            context = where[~is_noisy]
            num_clean = int((kinds[where] == NOISY - 1).sum())
            noisy = where[is_noisy].view(-1, num_clean)
            yield _Span(row * seq + context, row * seq + noisy)


def _alike(spans: Sequence[_Span]) -> Iterator[list[_Span]]:
    """Runs of documents with as many copies and contexts of like length; the order is kept."""
    run: list[_Span] = []
    for span in spans:
        if run and (
            len(span.noisy) != len(run[0].noisy)
            or len(run[0].context) < _LEAST_FILL * len(span.context)
        ):
            yield run
            run = []
        run.append(span)
    yield run


def _group(spans: Sequence[_Span], indices: Sequence[Tensor], window: int, step: int) -> _Group:
    context = torch.nn.utils.rnn.pad_sequence(
        [span.context for span in spans], batch_first=True, padding_value=-1
    )
    context = functional.pad(context, (0, -context.shape[1] % _CONTEXT_STEP), value=-1)
    frames = max(span.noisy.shape[1] for span in spans)
    window = min(window, -(-frames // step) * step)
    padded = -(-frames // window) * window
    noisy = torch.full((len(spans), len(spans[0].noisy), padded), -1)
    for number, span in enumerate(spans):
        noisy[number, :, : span.noisy.shape[1]] = span.noisy
    noisy = noisy.unflatten(2, (-1, window))

    def of(positions: Tensor) -> list[Tensor]:
        """Document, segment, block and copy at positions; padding is of no document."""
        found = [index[positions.clamp_min(0)] for index in indices]
        found[0] = found[0].masked_fill(positions < 0, -1)
        return found

    def seen(queries: list[Tensor], keys: list[Tensor]) -> Tensor:
        return is_allowed(
            tuple(query[..., :, None] for query in queries),
            tuple(key[..., None, :] for key in keys),
        )

    in_context, in_copy = of(context), of(noisy[:, 0])
    return _Group(
        context=context,
        noisy=noisy,
        context_mask=seen(in_context, in_context),
        noisy_context_mask=seen(in_copy, [index[:, None] for index in in_context]),
        own_mask=seen(in_copy, in_copy),
    )


def _attend(group: _Group, query: _Pair, key: _Pair, value: _Pair) -> tuple[Tensor, Tensor]:
    """Outputs at the context and noisy rows of a group, `rows heads head_dim`.

    Args:
        group: Shapes and masks.
        query: Context and noisy rows, scaled.
        key: Context and noisy rows.
        value: Context and noisy rows.
    """
    documents, size = group.context.shape
    _, copies, windows, frames = group.noisy.shape
    kv = key[0].shape[1]
    context = {"n": documents, "v": kv}
    noisy = {"n": documents, "m": copies, "w": windows, "f": frames, "v": kv}

    key_context = rearrange(key[0], "(n s) v d -> n v d s", **context)
    value_context = rearrange(value[0], "(n s) v d -> n v s d", **context)
    own = rearrange(query[0], "(n s) (v g) d -> n v (g s) d", **context)
    scores = (own @ key_context).unflatten(2, (-1, size))
    weights = _softmax(scores, group.context_mask[:, None, None]).flatten(2, 3)
    clean = rearrange(weights @ value_context, "n v (g s) d -> (n s) (v g) d", s=size)

    queries = rearrange(query[1], "(n m w f) (v g) d -> n v (m w g f) d", **noisy)
    by_window = rearrange(queries, "n v (m w gf) d -> n v m w gf d", m=copies, w=windows)
    key_own = rearrange(key[1], "(n m w f) v d -> n v m w d f", **noisy)
    value_own = rearrange(value[1], "(n m w f) v d -> n v m w f d", **noisy)
    scores = torch.cat(
        [
            (queries @ key_context).unflatten(2, (copies, windows, -1, frames)),
            (by_window @ key_own).unflatten(4, (-1, frames)),
        ],
        dim=-1,
    )
    mask = torch.cat([group.noisy_context_mask, group.own_mask], dim=-1)
    weights = _softmax(scores, rearrange(mask, "n w f k -> n 1 1 w 1 f k"))
    to_context, to_own = weights.split([size, frames], dim=-1)
    out = to_context.flatten(2, 5) @ value_context
    out = out + (to_own.flatten(4, 5) @ value_own).flatten(2, 4)
    return clean, rearrange(out, "n v (m w g f) d -> (n m w f) (v g) d", **noisy)


def _softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Weights of allowed keys; a padding query sees none, and its weights are unused."""
    return scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(-1)
