"""The cost functions count what the code computes and the mask allows."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from model import document_attention
from model.attention import arflow_mask
from model.audiocalm import AudioCALM
from model.batch import pack
from model.config import PRESETS, ExpertConfig, ModelConfig
from model.cost import (
    attention_flops,
    batch_counts,
    document_counts,
    forward_flops,
    sizes,
    training_flops,
)
from tests.factories.model import LOCAL_HEAD, random_document, random_model, tiny_config

CONFIGS = {
    "thin": tiny_config(),
    "local": tiny_config(head=LOCAL_HEAD),
    "no expert, no voice": tiny_config(expert=ExpertConfig(placement="none"), speaker_id=None),
}


def documents(config: ModelConfig) -> list[Any]:
    return [
        random_document(config, 0, num_copies=2, num_blocks=5, modality="speech"),
        random_document(config, 1, num_text=3, num_blocks=1),
    ]


def counted(run: Any) -> int:
    """Operations that torch counts."""
    # It counts no fused attention on the CPU.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


@pytest.mark.parametrize("name", CONFIGS)
def test_counts_of_documents_are_those_of_their_batch_and_mask(name: str) -> None:
    config = CONFIGS[name]
    batch = pack([documents(config), documents(config)[:1]], config, 90)
    expected = sum(
        (
            document_counts(
                config, len(d.token_ids), len(d.latents), d.num_copies, uses_expert=d.uses_expert
            )
            for d in [*documents(config), documents(config)[0]]
        ),
        start=document_counts(config, 0, 0, 0, uses_expert=False),
    )
    given = batch_counts(config, batch)
    assert given == dataclasses.replace(expected, documents=3)
    indices = batch.mask_indices
    assert given.pairs == arflow_mask(indices)[indices.document >= 0].sum()
    assert given.noisy_frames == batch.flow_mask.sum()
    assert given.noisy_blocks == len(batch.noisy_frames)
    if config.expert.placement != "none":
        assert given.expert_positions == len(batch.expert_tokens)


@pytest.mark.parametrize("name", CONFIGS)
def test_work_of_a_training_step_is_what_torch_counts(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = CONFIGS[name]
    length = sum(d.length(config.head.kind) for d in documents(config))
    # Without the padding that saves compilation: it would be most of documents this short.
    monkeypatch.setattr(document_attention, "_CONTEXT_MULTIPLE", 1)
    monkeypatch.setattr(document_attention, "_WINDOW_MULTIPLE", 1)
    batch = pack([documents(config)], config, length)
    model = random_model(config).train()
    total = counted(lambda: model(batch))
    monkeypatch.setattr(model, "_attention", lambda batch: lambda layer, query, key, value: query)
    # What is left are linear layers, and scores and sums of the local head.
    without = counted(lambda: model(batch))
    counts = batch_counts(config, batch)
    attention = attention_flops(config, counts)
    assert forward_flops(config, counts) - attention == without
    backbone = config.backbone
    dense_pairs = 4 * backbone.num_layers * backbone.num_heads * backbone.head_dim * length**2
    # Attention by document computes some of the pairs that the mask forbids, but few.
    assert attention <= total - without < dense_pairs
    assert training_flops(config, counts) == 3 * forward_flops(config, counts)


@pytest.mark.parametrize("name", ["0.6b", "1.7b", "4b", "8b"])
def test_sizes_are_those_of_the_published_models(name: str) -> None:
    published = {"0.6b": 440e6, "1.7b": 1409e6, "4b": 3633e6, "8b": 6946e6}
    counted_sizes = sizes(PRESETS[name])
    assert counted_sizes.backbone == pytest.approx(published[name], rel=0.01)
    assert counted_sizes.embedding == 151_936 * PRESETS[name].backbone.hidden_dim
    assert 0.1 < counted_sizes.expert / counted_sizes.backbone < 0.25


def test_sizes_add_up_to_the_model() -> None:
    for config in CONFIGS.values():
        assert sizes(config).total == sum(p.numel() for p in AudioCALM(config).parameters())
