"""Memory of a training run by formula and by what torch keeps."""

from __future__ import annotations

import dataclasses
from typing import Literal

import pytest
import torch
from torch import Tensor, is_tensor

from model.audiocalm import AudioCALM
from model.batch import TrainingBatch, pack
from model.config import MODALITIES, preset
from model.cost import batch_counts
from model.objective import loss_from, losses
from pipeline.training.hardware import activation_bytes, peak_flops, training_bytes
from tests.factories.model import random_document, random_model


def test_every_stage_shares_more() -> None:
    by_stage = [training_bytes(1000, stage, 4) for stage in range(4)]
    assert by_stage == [20_000, 8_000, 6_500, 5_000]
    assert training_bytes(1000, 3, 1) == 20_000
    assert training_bytes(1000, 2, 4, num_trained=100) == 2000 + 50 + 400


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
