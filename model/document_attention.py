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

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from model.attention import is_allowed
from model.sequence import NOISY

_WINDOW_FRAMES = 64
"""Noisy frames that share one product; more of them compute more forbidden pairs."""
_LEAST_FILL = 0.8
"""Documents share a group while the shortest context fills this share of the longest."""


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
        window_blocks: Clean blocks that audio looks back on; None is all.
    """

    def __init__(
        self,
        document: Int[Tensor, "batch seq"],
        segment: Int[Tensor, "batch seq"],
        block: Int[Tensor, "batch seq"],
        copy: Int[Tensor, "batch seq"],
        frames_per_block: int,
        window_blocks: int | None = None,
    ) -> None:
        indices = tuple(index.flatten() for index in (document, segment, block, copy))
        spans = sorted(_spans(document, segment), key=lambda s: (len(s.noisy), len(s.context)))
        window = frames_per_block * max(1, _WINDOW_FRAMES // frames_per_block)
        self._groups = [
            _group(members, indices, window, window_blocks) for members in _alike(spans)
        ]
        rows = torch.cat([p.flatten() for g in self._groups for p in (g.context, g.noisy)])
        # Where every position finds its output; a position without a document reads any row.
        self._found = torch.zeros(document.numel(), dtype=torch.int64)
        is_used = rows >= 0
        self._found[rows[is_used]] = is_used.nonzero().squeeze(1)
        self._shape = document.shape

    @torch.compiler.disable
    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attention output of any layer."""
        flat = [rearrange(heads, "b h s d -> (b s) h d") for heads in (query, key, value)]
        flat[0] = flat[0] * query.shape[-1] ** -0.5
        parts = [part for group in self._groups for part in _attend(group, *flat)]
        out = torch.cat(parts).index_select(0, self._found).unflatten(0, self._shape)
        return rearrange(out, "b s h d -> b h s d")


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


def _group(
    spans: Sequence[_Span], indices: Sequence[Tensor], window: int, window_blocks: int | None
) -> _Group:
    context = torch.nn.utils.rnn.pad_sequence(
        [span.context for span in spans], batch_first=True, padding_value=-1
    )
    frames = max(span.noisy.shape[1] for span in spans)
    window = min(window, frames)
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
        pair = ([q[..., :, None] for q in queries], [k[..., None, :] for k in keys])
        return is_allowed(tuple(pair[0]), tuple(pair[1]), window_blocks)

    in_context, in_copy = of(context), of(noisy[:, 0])
    return _Group(
        context=context,
        noisy=noisy,
        context_mask=seen(in_context, in_context),
        noisy_context_mask=seen(in_copy, [index[:, None] for index in in_context]),
        own_mask=seen(in_copy, in_copy),
    )


def _attend(group: _Group, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs at the context and noisy positions of a group, `positions heads head_dim`."""
    kv = key.shape[1]
    key_context = rearrange(_rows(key, group.context), "n s v d -> n v d s")
    value_context = rearrange(_rows(value, group.context), "n s v d -> n v s d")
    size = group.context.shape[1]

    own = rearrange(_rows(query, group.context), "n s (v g) d -> n v (g s) d", v=kv)
    scores = (own @ key_context).unflatten(2, (-1, size))
    weights = _softmax(scores, group.context_mask[:, None, None]).flatten(2, 3)
    clean = rearrange(weights @ value_context, "n v (g s) d -> (n s) (v g) d", s=size)

    _, copies, windows, frames = group.noisy.shape
    axes = {"m": copies, "w": windows, "f": frames}
    noisy_query = rearrange(
        _rows(query, group.noisy), "n m w f (v g) d -> n v (m w g f) d", v=kv
    )
    split = (copies, windows, -1, frames)
    by_window = rearrange(noisy_query, "n v (m w gf) d -> n v m w gf d", m=copies, w=windows)
    key_own = rearrange(_rows(key, group.noisy), "n m w f v d -> n v m w d f")
    value_own = rearrange(_rows(value, group.noisy), "n m w f v d -> n v m w f d")
    scores = torch.cat(
        [
            (noisy_query @ key_context).unflatten(2, split),
            (by_window @ key_own).unflatten(4, (-1, frames)),
        ],
        dim=-1,
    )
    mask = torch.cat([group.noisy_context_mask, group.own_mask], dim=-1)
    weights = _softmax(scores, rearrange(mask, "n w f k -> n 1 1 w 1 f k"))
    to_context, to_own = weights.split([size, frames], dim=-1)
    out = to_context.flatten(2, 5) @ value_context
    out = out + (to_own.flatten(4, 5) @ value_own).flatten(2, 4)
    return clean, rearrange(out, "n v (m w g f) d -> (n m w f) (v g) d", **axes)


def _rows(heads: Float[Tensor, "positions heads head_dim"], index: Tensor) -> Tensor:
    """Heads at positions; padding reads the first one and is masked as a key."""
    found = heads.index_select(0, index.clamp_min(0).flatten())
    return found.unflatten(0, index.shape)


def _softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Weights of allowed keys; those of a padding query, which sees none, are not used."""
    return scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(-1)
