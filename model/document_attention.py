"""AR-Flow attention on a CPU: document by document, without most pairs that the mask forbids.

In a packed row about 95 % of the pairs of a dense mask belong to two documents, or to two copies.
Here prefix and clean frames of a document attend among themselves, and its noisy copies share the
prefix and clean keys; a noisy window adds only its own keys. Documents of like length share one
batched product. The result is that of `attention.arflow_mask`
(tests/model/test_document_attention.py). A GPU has FlexAttention for this, which skips the blocks
of the mask that hold no allowed pair.

Axes: `documents` of one group, `prefix + clean` positions are the context, `copies`, `windows` of
`frames` noisy positions, `kv` key heads, `group` query heads that share a key head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from einops import rearrange
from jaxtyping import Bool, Int
from torch import Tensor

from model.attention import is_allowed
from model.sequence import CLEAN, NOISY, PADDING, MaskIndices

_WINDOW_FRAMES = 64
"""Noisy frames that share one product; more of them compute more forbidden pairs."""
_LEAST_FILL = 0.8
"""Documents share a group while the shortest context fills this share of the longest."""
_CONTEXT_MULTIPLE = 64
"""Contexts are padded to a multiple of this, so that few shapes of products occur: a CPU compiles a
bf16 product for every shape it meets, and without padding nearly every group brings a new one
(docs/findings.md, "Few shapes")."""
_WINDOW_MULTIPLE = 32
"""Windows of documents with fewer frames than a whole window are padded likewise."""


class _Document(NamedTuple):
    """Positions of one document in the flattened rows.

    Attributes:
        context: Prefix and clean frames.
        noisy: `copies frames`.
    """

    context: Tensor
    noisy: Tensor


@dataclass(frozen=True)
class _Group:
    """Documents that are computed together; position -1 is padding.

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
        indices: Indices of all positions.
        frames_per_block: Frames of a block; windows end on block edges.
    """

    def __init__(self, indices: MaskIndices, frames_per_block: int) -> None:
        flat = MaskIndices(*(index.flatten() for index in indices))
        documents = sorted(_documents(indices), key=lambda d: (len(d.noisy), len(d.context)))
        window, multiple = (
            frames_per_block * max(1, frames // frames_per_block)
            for frames in (_WINDOW_FRAMES, _WINDOW_MULTIPLE)
        )
        self._groups = [_group(alike, flat, window, multiple) for alike in _alike(documents)]
        parts = [part.flatten() for g in self._groups for part in (g.context, g.noisy)]
        self._sizes = [len(part) for part in parts]
        # Positions group by group, and where in that order each position stands.
        grouped = torch.cat(parts)
        is_used = grouped >= 0
        place = torch.full_like(flat.document, -1, dtype=grouped.dtype)
        place[grouped[is_used]] = is_used.nonzero().squeeze(1)
        self._grouped, self._place = _Order.of(grouped), _Order.of(place)
        self._shape = indices.document.shape

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attention output of any layer; 0 at positions without a document."""
        parts = []
        for heads in (query * query.shape[-1] ** -0.5, key, value):
            flat = rearrange(heads, "b h s d -> (b s) h d")
            parts.append(_reorder(flat, self._grouped, self._place).split(self._sizes))
        outputs: list[Tensor] = []
        for number, group in enumerate(self._groups):
            pair = slice(2 * number, 2 * number + 2)
            outputs += _attend(group, *(part[pair] for part in parts))
        out = _reorder(torch.cat(outputs), self._place, self._grouped)
        return rearrange(out.unflatten(0, self._shape), "b s h d -> b h s d")


class _Order(NamedTuple):
    """Rows to read from a tensor, in order.

    Attributes:
        rows: Row of the source; any row where the result is 0.
        zeros: Places of the result that read no row.
    """

    rows: Int[Tensor, " seq"]
    zeros: Int[Tensor, " zeros"]

    @staticmethod
    def of(rows: Int[Tensor, " seq"]) -> _Order:
        """Order of rows, where -1 stands for none."""
        return _Order(rows.clamp_min(0), (rows < 0).nonzero().squeeze(1))

    def read(self, source: Tensor) -> Tensor:
        """The rows, 0 where there is none."""
        return source.index_select(0, self.rows).index_fill_(0, self.zeros, 0)


class _Reorder(torch.autograd.Function):
    """Rows in another order. Every row is read at most once, so the gradient is a gather too.

    The gradient of `index_select` adds row by row and takes several times as long.
    """

    @staticmethod
    def forward(ctx: Any, source: Tensor, order: _Order, inverse: _Order) -> Tensor:
        """The rows of the source in an order whose inverse is given."""
        ctx.inverse = inverse
        return order.read(source)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """Gradient of the source."""
        return ctx.inverse.read(gradients[0]), None, None


def _reorder(source: Tensor, order: _Order, inverse: _Order) -> Tensor:
    return cast(Tensor, _Reorder.apply(source, order, inverse))


def _documents(indices: MaskIndices) -> Iterator[_Document]:
    """Documents of all rows: a document is contiguous, its noisy copies at its end."""
    for row, (documents, segments) in enumerate(
        zip(indices.document, indices.segment, strict=True)
    ):
        for number in range(int(documents.max()) + 1):
            position = (documents == number).nonzero().squeeze(1)
            segment = segments[position]
            num_clean = int((segment == CLEAN).sum())
            position = position + row * len(documents)
            is_noisy = segment == NOISY
            yield _Document(position[~is_noisy], position[is_noisy].view(-1, num_clean))


def _alike(documents: Sequence[_Document]) -> Iterator[list[_Document]]:
    """Runs of documents with as many copies and contexts of like length; the order is kept."""
    run: list[_Document] = []
    for document in documents:
        if run and (
            len(document.noisy) != len(run[0].noisy)
            or len(run[0].context) < _LEAST_FILL * len(document.context)
        ):
            yield run
            run = []
        run.append(document)
    yield run


def _group(
    documents: Sequence[_Document], indices: MaskIndices, window: int, multiple: int
) -> _Group:
    """Documents with as many copies as one group, padded to few shapes: windows have at most
    `window` frames, smaller ones a multiple of `multiple`."""
    longest = max(len(document.context) for document in documents)
    frames = max(document.noisy.shape[1] for document in documents)
    window = min(window, _rounded_up(frames, multiple))
    copies = len(documents[0].noisy)
    context = torch.full((len(documents), _rounded_up(longest, _CONTEXT_MULTIPLE)), -1)
    noisy = torch.full((len(documents), copies, _rounded_up(frames, window)), -1)
    for number, document in enumerate(documents):
        context[number, : len(document.context)] = document.context
        noisy[number, :, : document.noisy.shape[1]] = document.noisy
    noisy = noisy.unflatten(2, (-1, window))

    in_context, in_window = _at(context, indices), _at(noisy[:, 0], indices)
    before = MaskIndices(*(index[:, None] for index in in_context))
    return _Group(
        context=context,
        noisy=noisy,
        context_mask=_visible(in_context, in_context),
        noisy_context_mask=_visible(in_window, before),
        own_mask=_visible(in_window, in_window),
    )


def _rounded_up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple


def _at(positions: Tensor, indices: MaskIndices) -> MaskIndices:
    """Indices at positions of the flattened rows; -1 is padding."""
    found = MaskIndices(*(index[positions.clamp_min(0)] for index in indices))
    return found._replace(document=found.document.masked_fill(positions < 0, PADDING))


def _visible(queries: MaskIndices, keys: MaskIndices) -> Tensor:
    """Which of the keys each query sees, `... queries keys`."""
    return is_allowed(
        MaskIndices(*(index[..., :, None] for index in queries)),
        MaskIndices(*(index[..., None, :] for index in keys)),
    )


def _attend(
    group: _Group, query: Sequence[Tensor], key: Sequence[Tensor], value: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Outputs at the context and noisy positions of a group, `positions heads head_dim`, from the
    scaled queries, keys and values there."""
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
