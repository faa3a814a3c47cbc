"""AR-Flow attention: the mask of a packed row, and the grouped-query attention under it.

Inside one document:
1. prefix attends to earlier prefix (an ordinary causal language model);
2. audio attends to the whole prefix;
3. a clean frame attends to clean blocks up to its own, in both directions inside a block;
4. a noisy frame attends to strictly earlier clean blocks;
5. a noisy frame attends to its own block of its own copy.

So no clean state depends on a noisy one, and a noisy block attends to exactly what the cache holds
when that block is generated (tests/model/inference/test_sampler.py).

Source:
    Rules 3 to 5 are the block-causal, offset block-causal and block-diagonal parts of the mask of
    BD3-LM, arXiv:2503.09573, section 3; for continuous latents ACDiT, arXiv:2412.07720.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Protocol, no_type_check, runtime_checkable

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from model.sequence import CLEAN, NOISY, PREFIX, MaskIndices

Mask = Tensor | BlockMask
"""What `attend` takes: a boolean `batch seq seq` tensor, or a FlexAttention block mask."""


@runtime_checkable
class Attend(Protocol):
    """Attention of one forward pass: over a pack, or over a cache."""

    def __call__(
        self,
        layer: int,
        query: Float[Tensor, "batch heads seq head_dim"],
        key: Float[Tensor, "batch kv_heads seq head_dim"],
        value: Float[Tensor, "batch kv_heads seq head_dim"],
    ) -> Float[Tensor, "batch heads seq head_dim"]:
        """Attention output of one layer; keys and queries already carry their positions."""


# The functions that FlexAttention traces are not wrapped by the type checks of the tests.
@no_type_check
def is_allowed(query: MaskIndices, key: MaskIndices) -> Tensor:
    """Rules 1 to 5 for any pairs of positions, given as indices that broadcast to them."""
    back = query.block - key.block
    to_prefix = (key.segment == PREFIX) & ((query.segment != PREFIX) | (back >= 0))
    to_clean = (key.segment == CLEAN) & (
        ((query.segment == CLEAN) & (back >= 0)) | ((query.segment == NOISY) & (back > 0))
    )
    is_own = (back == 0) & (query.copy == key.copy)
    to_noisy = (key.segment == NOISY) & (query.segment == NOISY) & is_own
    is_together = (query.document == key.document) & (query.document >= 0)
    return is_together & (to_prefix | to_clean | to_noisy)


def arflow_mask(indices: MaskIndices) -> Bool[Tensor, "batch seq seq"]:
    """Rules 1 to 5 as a dense mask, query by key; a padding position attends only to itself."""
    query = MaskIndices(*(index[:, :, None] for index in indices))
    key = MaskIndices(*(index[:, None, :] for index in indices))
    return is_allowed(query, key) | torch.eye(
        indices.document.shape[1], dtype=torch.bool, device=indices.document.device
    )


@no_type_check
def _mask_mod(indices: MaskIndices) -> Callable[..., Tensor]:
    """The mask in the form that FlexAttention takes."""

    def mask_mod(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        """Whether a query position of a row attends to a key position, in any head."""
        at_query = MaskIndices(*[index[row, query] for index in indices])
        at_key = MaskIndices(*[index[row, key] for index in indices])
        return is_allowed(at_query, at_key) | (query == key)

    return mask_mod


def arflow_block_mask(indices: MaskIndices) -> BlockMask:
    """The same mask for FlexAttention: built once a forward pass and shared by all layers.

    Compiled on CUDA, where the eager version would materialise the dense mask. Keep `seq` fixed
    and a multiple of 128: another shape compiles again.
    """
    batch, seq = indices.document.shape
    device = indices.document.device
    build = _compiled_block_mask() if device.type == "cuda" else create_block_mask
    return build(_mask_mod(indices), batch, None, seq, seq, device)


@cache
def _compiled_block_mask() -> Callable[..., BlockMask]:
    return torch.compile(create_block_mask)


@cache
def _compiled_flex() -> Callable[..., Any]:
    return torch.compile(flex_attention)


def attend(
    query: Float[Tensor, "batch heads seq head_dim"],
    key: Float[Tensor, "batch kv_heads keys head_dim"],
    value: Float[Tensor, "batch kv_heads keys head_dim"],
    mask: Mask,
) -> Float[Tensor, "batch heads seq head_dim"]:
    """Grouped-query attention; consecutive query heads share a key head.

    Args:
        query: With rotary positions, as the keys.
        key: Keys.
        value: Values.
        mask: Block mask, or boolean `batch seq keys` that is True where attention is allowed.
    """
    if isinstance(mask, BlockMask):
        flex: Callable[..., Any] = flex_attention
        if query.is_cuda:
            flex = _compiled_flex()
        return flex(query, key, value, block_mask=mask, enable_gqa=True)
    dense = rearrange(mask, "b q k -> b 1 q k")
    return F.scaled_dot_product_attention(query, key, value, attn_mask=dense, enable_gqa=True)


def attend_few(
    query: Float[Tensor, "batch heads seq head_dim"],
    key: Float[Tensor, "batch kv_heads keys head_dim"],
    value: Float[Tensor, "batch kv_heads keys head_dim"],
    bias: Float[Tensor, "batch 1 queries keys"] | None,
) -> Float[Tensor, "batch heads seq head_dim"]:
    """`attend` for few queries over many keys, as in sampling.

    The heads that share a key head become more queries of it, so that the keys of a long cache
    are read once and never repeated in memory. `bias` comes from `few_bias`; None shows every key.
    """
    groups = query.shape[1] // key.shape[1]
    # einops would double the cost; this runs at every flow evaluation.
    folded = query.unflatten(1, (-1, groups)).flatten(2, 3)
    out = F.scaled_dot_product_attention(folded, key, value, attn_mask=bias)
    return out.unflatten(2, (groups, -1)).flatten(1, 2)


def few_bias(
    mask: Bool[Tensor, "batch seq keys"], groups: int, dtype: torch.dtype
) -> Float[Tensor, "batch 1 queries keys"]:
    """Attention bias for `attend_few`: 0 where attention is allowed, -inf elsewhere.

    Args:
        mask: True where attention is allowed; one query stands for all of them.
        groups: Query heads that share a key head.
        dtype: Dtype of the queries.
    """
    bias = torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, -torch.inf)
    if mask.shape[1] > 1:
        return repeat(bias, "b q k -> b 1 (g q) k", g=groups)
    return rearrange(bias, "b q k -> b 1 q k")


class PackedAttention:
    """Attention of a packed forward pass: one mask for all layers."""

    def __init__(self, mask: Mask) -> None:
        self.mask = mask

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attention output of any layer."""
        return attend(query, key, value, self.mask)
