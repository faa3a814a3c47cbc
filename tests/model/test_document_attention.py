"""Attention document by document against the dense mask."""

from __future__ import annotations

import pytest
import torch

from model.attention import arflow_mask, attend
from model.batch import TrainingBatch, pack
from model.document_attention import DocumentAttention
from tests.factories.model import LOCAL_HEAD, random_document, tiny_config


def ragged_batch(frames_per_block: int = 4, head: str = "thin") -> TrainingBatch:
    config = tiny_config(frames_per_block=frames_per_block)
    if head == "local":
        config = tiny_config(frames_per_block=frames_per_block, head=LOCAL_HEAD)
    rows = [
        [
            random_document(config, 0, num_text=3, num_blocks=3, num_copies=2),
            random_document(config, 1, num_text=7, num_blocks=2, num_copies=2),
            random_document(config, 4, num_text=30, num_blocks=2, num_copies=2),
        ],
        [random_document(config, 2, num_text=1, num_blocks=20)],
        [random_document(config, 3, num_text=5, num_blocks=1, num_copies=3)],
    ]
    return pack(rows, config, 256)


@pytest.mark.parametrize("head", ["thin", "local"])
@pytest.mark.parametrize("frames_per_block", [1, 4])
def test_outputs_and_gradients_equal_those_of_the_dense_mask(
    frames_per_block: int, head: str
) -> None:
    batch = ragged_batch(frames_per_block, head)
    torch.manual_seed(0)
    size = batch.backbone_length
    heads = [torch.randn(3, n, size, 16, requires_grad=True) for n in (4, 2, 2)]
    by_document = DocumentAttention(batch.mask_indices, frames_per_block)
    mask = arflow_mask(batch.mask_indices)
    is_used = (batch.mask_indices.document >= 0)[:, None, :, None]
    weight = torch.randn(3, 4, size, 16)

    results = []
    for out in (by_document(0, *heads), attend(*heads, mask)):
        kept = torch.where(is_used, out, 0.0)
        results.append([kept, *torch.autograd.grad((kept * weight).sum(), heads)])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert not torch.where(is_used, 0.0, by_document(0, *heads)).any()
