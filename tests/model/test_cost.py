"""The cost functions count what the code computes and the mask allows."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, is_tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from model.attention import arflow_mask
from model.audiocalm import AudioCALM
from model.batch import TrainingBatch, pack
from model.config import MODALITIES, PRESETS, ExpertConfig, ModelConfig, preset
from model.cost import (
    activation_bytes,
    batch_counts,
    cache_bytes,
    document_counts,
    forward_work,
    peak_flops,
    sampling_work,
    sizes,
    training_bytes,
    training_work,
)
from model.inference.generation import GenerationRequest, SamplingOptions
from model.inference.sampler import Sampler
from model.objective import loss_from, losses
from tests.factories.model import LOCAL_HEAD, random_document, random_model, tiny_config

CONFIGS = {
    "thin": tiny_config(),
    "local": tiny_config(head=LOCAL_HEAD),
    "window": tiny_config(window_blocks=2),
    "no expert, no voice": tiny_config(expert=ExpertConfig(placement="none"), speaker_id=None),
}


def documents(config: ModelConfig) -> list[Any]:
    return [
        random_document(config, 0, num_copies=2, num_blocks=5, modality="speech"),
        random_document(config, 1, num_text=3, num_blocks=1),
    ]


def counted(run: Any) -> tuple[int, int]:
    """Operations of matrix products of linear layers, and of all others."""
    # torch counts no fused attention on the CPU.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run()
    by_operation = counter.get_flop_counts()["Global"]
    linear = sum(n for op, n in by_operation.items() if str(op) in ("aten.mm", "aten.addmm"))
    return linear, counter.get_total_flops() - linear


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
    seen = slice(batch.backbone_length)
    indices = (batch.document, batch.segment, batch.block, batch.copy)
    mask = arflow_mask(*(index[:, seen] for index in indices), config.window_blocks)
    assert given.pairs == mask[batch.document[:, seen] >= 0].sum()
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
    batch = pack([documents(config)], config, length)
    model = random_model(config).train()
    linear, others = counted(lambda: model(batch))
    monkeypatch.setattr(model, "_attention", lambda batch: lambda layer, query, key, value: query)
    # What is left are linear layers, and scores and sums of the local head.
    without = sum(counted(lambda: model(batch)))
    work = forward_work(config, batch_counts(config, batch))
    assert work.total - work.attention == without
    backbone = config.backbone
    dense_pairs = 4 * backbone.num_layers * backbone.num_heads * backbone.head_dim * length**2
    # Attention by document computes some of the pairs that the mask forbids, but few.
    assert work.attention <= linear + others - without < dense_pairs
    assert training_work(config, batch_counts(config, batch)).total == 3 * work.total


@pytest.mark.parametrize("uses_expert", [False, True])
@pytest.mark.parametrize("waits_for_stop", [False, True])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("thin", SamplingOptions(num_flow_steps=3)),
        ("thin", SamplingOptions(num_flow_steps=2, guidance_scale=1.0)),
        ("local", SamplingOptions(num_flow_steps=3)),
        ("window", SamplingOptions(num_flow_steps=1)),
    ],
)
def test_work_of_sampling_is_what_torch_counts(
    name: str, options: SamplingOptions, waits_for_stop: bool, uses_expert: bool
) -> None:
    config = CONFIGS[name]
    model = random_model(config)
    nn.init.constant_(model.stop_head.output_proj.bias, -50.0)
    asked = GenerationRequest(
        token_ids=(1, 2, 3),
        null_ids=(4, 5, 6),
        uses_expert=uses_expert,
        seed=0,
        max_frames=20,
        exact_frames=None if waits_for_stop else 20,
        options=options,
    )
    sampler = Sampler(model)
    # The batched products of its CPU form would be counted as those of attention.
    sampler.backbone = model.backbone
    list(sampler.generate(asked))
    linear, others = counted(lambda: list(sampler.generate(asked)))
    work = sampling_work(
        config,
        3,
        20,
        options,
        uses_expert=uses_expert,
        num_null=3,
        waits_for_stop=waits_for_stop,
    )
    stop = config.backbone.hidden_dim * (config.backbone.hidden_dim + 1)
    if waits_for_stop:
        linear -= 2 * 20 * stop
    in_head = 0.0
    if config.head.kind == "local":
        rows = 2 if options.guidance_scale != 1 else 1
        in_head = rows * 20 * 3 * 2 * config.head.num_layers * config.head.hidden_dim * 2 * 4
    assert linear == work.total - work.attention - in_head
    # torch also counts masked pairs: in the prefill, in the window and in the fused pass.
    assert work.attention + in_head <= others < 1.6 * (work.attention + in_head)


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


def test_every_stage_shares_more() -> None:
    by_stage = [training_bytes(1000, stage, 4) for stage in range(4)]
    assert by_stage == [20_000, 8_000, 6_500, 5_000]
    assert training_bytes(1000, 3, 1) == 20_000


def kept_bytes(model: AudioCALM, batch: TrainingBatch) -> int:
    """Memory that autograd keeps after the forward pass, parameters and batch left out."""
    given = [*model.parameters(), *filter(is_tensor, vars(batch).values())]
    known = {tensor.untyped_storage().data_ptr() for tensor in given}
    kept: dict[int, Tensor] = {}

    def note(tensor: Tensor) -> Tensor:
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        sums = losses(model(batch), batch)
        loss = loss_from(sums, sums.flow_count, sums.stop_count)
    assert loss.requires_grad
    return sum(t.untyped_storage().nbytes() for at, t in kept.items() if at not in known)


@pytest.mark.parametrize("kind", ["thin", "local"])
def test_activation_bytes_are_what_autograd_keeps(
    kind: Literal["thin", "local"], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = preset("tiny")
    config = dataclasses.replace(config, head=dataclasses.replace(config.head, kind=kind))
    row = [
        random_document(config, i, num_text=30, num_blocks=8, num_copies=2, modality=modality)
        for i, modality in enumerate(MODALITIES)
    ]
    batch = pack([row], config, sum(d.length(kind) for d in row))
    model = random_model(config).train()

    # Keeps query, key, value and output, as fused kernels do; the CPU's own keeps the scores too.
    def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return torch.sinh(query) + (key * value).repeat(1, 2, 1, 1)

    monkeypatch.setattr(model, "_attention", lambda batch: attend)
    counts = batch_counts(config, batch)
    plain = kept_bytes(model, batch)
    assert activation_bytes(config, counts, bytes_per_value=4) == pytest.approx(plain, rel=0.05)
    model.backbone.recomputes_layers = True
    recomputed = kept_bytes(model, batch)
    assert recomputed < 0.5 * plain
    # While a layer runs backward, what it keeps is there once more.
    peak = recomputed + (plain - recomputed) / config.backbone.num_layers
    expected = activation_bytes(config, counts, recomputes_layers=True, bytes_per_value=4)
    assert expected == pytest.approx(peak, rel=0.1)


def test_the_peak_of_a_device_is_found_by_a_part_of_its_name() -> None:
    assert peak_flops("NVIDIA H200") == peak_flops("NVIDIA H100 80GB HBM3") == 989e12
    assert peak_flops("a device nobody has measured") is None


def test_cache_bytes_are_those_of_a_cache() -> None:
    model = random_model()
    sampler = Sampler(model)
    sampler.open(
        GenerationRequest(
            token_ids=(1, 2, 3), null_ids=(4,), uses_expert=False, seed=0, max_frames=4
        )
    )
    rows, _, tokens = sampler.cache.keys.shape[1:4]
    expected = rows * cache_bytes(model.config, tokens, bytes_per_value=4)
    assert sampler.cache.size_bytes == expected
