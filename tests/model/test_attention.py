"""The mask rules, one by one and against a second statement of them; FlexAttention against SDPA."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor

from model.attention import arflow_block_mask, arflow_mask, attend, attend_few, few_bias
from model.batch import TrainingBatch, pack
from model.sequence import CLEAN, NOISY, PADDING, PREFIX
from tests.factories.model import random_document, tiny_config


def ragged_batch(frames_per_block: int = 4) -> TrainingBatch:
    config = tiny_config(frames_per_block=frames_per_block)
    rows = [
        [
            random_document(config, 0, num_text=3, num_blocks=3, num_copies=2),
            random_document(config, 1, num_text=7, num_blocks=2),
        ],
        [random_document(config, 2, num_text=1, num_blocks=4)],
    ]
    return pack(rows, config, 256)


def mask_of(batch: TrainingBatch) -> Tensor:
    return arflow_mask(batch.mask_indices)


def is_allowed(batch: TrainingBatch, row: int, q: int, k: int) -> bool:
    """The five rules, read aloud."""

    def at(i: int) -> tuple[int, int, int, int]:
        fields = (batch.document, batch.segment, batch.block, batch.copy)
        values = [int(field[row, i]) for field in fields]
        return values[0], values[1], values[2], values[3]

    (doc_q, seg_q, block_q, copy_q), (doc_k, seg_k, block_k, copy_k) = at(q), at(k)
    if q == k:
        return True
    if doc_q != doc_k or doc_q == PADDING:
        return False
    match (seg_q, seg_k):
        case (0, 0):
            return block_k <= block_q
        case (1 | 2, 0):
            return True
        case (1, 1):
            return block_q - block_k >= 0
        case (2, 1):
            return block_q - block_k > 0
        case (2, 2):
            return block_q == block_k and copy_q == copy_k
    return False


def test_mask_states_the_five_rules() -> None:
    assert (PREFIX, CLEAN, NOISY) == (0, 1, 2)
    config = tiny_config(frames_per_block=2)
    documents = [
        random_document(config, 0, num_text=2, num_blocks=4, num_copies=2),
        random_document(config, 1, num_text=3, num_blocks=2),
    ]
    batch = pack([documents], config, 48)
    expected = [[is_allowed(batch, 0, q, k) for k in range(48)] for q in range(48)]
    assert torch.equal(mask_of(batch)[0], torch.tensor(expected))


def test_one_frame_a_block_and_one_copy_is_a_causal_model() -> None:
    config = tiny_config(frames_per_block=1)
    document = random_document(config, 0, num_text=3, num_blocks=5)
    mask = mask_of(pack([[document]], config, 13))[0]
    causal = torch.ones(8, 8).tril().bool()
    assert torch.equal(mask[:8, :8], causal)
    # A noisy frame sees what its clean twin sees, with itself in its twin's place.
    assert torch.equal(mask[8:, :8], causal[3:] & ~torch.eye(8, dtype=torch.bool)[3:])
    assert torch.equal(mask[8:, 8:], torch.eye(5, dtype=torch.bool))


@pytest.mark.parametrize("frames_per_block", [1, 4])
def test_flex_attention_equals_the_dense_mask(frames_per_block: int) -> None:
    batch = ragged_batch(frames_per_block)
    query, key, value = (torch.randn(2, heads, 256, 16) for heads in (4, 2, 2))
    block_mask = arflow_block_mask(batch.mask_indices)
    with warnings.catch_warnings():
        # Uncompiled FlexAttention is the reference here; it warns that it is slow.
        warnings.simplefilter("ignore")
        flex = attend(query, key, value, block_mask)
    dense = attend(query, key, value, mask_of(batch))
    torch.testing.assert_close(flex, dense, atol=1e-5, rtol=1e-5)
    assert block_mask.kv_num_blocks.sum() < 2 * 4


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_compiled_flex_attention_gives_the_outputs_and_gradients_of_the_dense_mask() -> None:
    batch = ragged_batch().to("cuda")
    sizes = [(2, heads, 256, 64) for heads in (4, 2, 2)]
    heads = [torch.randn(size, device="cuda", requires_grad=True) for size in sizes]
    outputs = []
    is_used = (batch.document >= 0)[:, None, :, None]
    for mask in (arflow_block_mask(batch.mask_indices), mask_of(batch)):
        out = attend(heads[0], heads[1], heads[2], mask) * is_used
        outputs.append([out, *torch.autograd.grad(out.square().sum(), heads)])
    for given, expected in zip(*outputs, strict=True):
        # Products in TensorFloat-32 may be allowed.
        torch.testing.assert_close(given, expected, atol=2e-2, rtol=2e-2)


def test_padding_gives_finite_states_and_gradients() -> None:
    batch = ragged_batch()
    query, key, value = (torch.randn(2, heads, 256, 16, requires_grad=True) for heads in (4, 2, 2))
    out = attend(query, key, value, mask_of(batch))
    out.sum().backward()
    assert all(t is not None and t.isfinite().all() for t in (out, query.grad, key.grad))


@pytest.mark.parametrize("mask_rows", [1, 5])
def test_folded_heads_give_the_same_attention(mask_rows: int) -> None:
    query, key, value = torch.randn(2, 6, 5, 8), torch.randn(2, 2, 9, 8), torch.randn(2, 2, 9, 8)
    mask = torch.rand(2, mask_rows, 9) < 0.6
    mask[..., 0] = True
    expected = attend(query, key, value, mask.expand(-1, 5, -1))
    torch.testing.assert_close(
        attend_few(query, key, value, few_bias(mask, 3, torch.float32)), expected
    )
