"""A-MoME: nothing at first, nothing for others, and always in the graph."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from model.audiocalm import AudioCALM
from model.batch import TrainingBatch, pack
from model.config import ExpertConfig, ModelConfig
from model.experts import route_rows
from model.layers import materialise
from model.objective import loss_from, losses
from tests.factories.model import random_document, random_model, tiny_config


def batch_of(config: ModelConfig, *modalities: str) -> TrainingBatch:
    documents = [random_document(config, i, modality=m) for i, m in enumerate(modalities)]
    return pack([documents], config, 96)


def twin_without_expert(model: AudioCALM) -> AudioCALM:
    twin = AudioCALM(tiny_config(expert=ExpertConfig(placement="none"))).train(model.training)
    shared = {name: v for name, v in model.state_dict().items() if ".expert." not in name}
    twin.load_state_dict(shared)
    return twin


def velocity(model: AudioCALM, batch: TrainingBatch) -> Tensor:
    with torch.no_grad():
        return model(batch).velocity


@pytest.mark.parametrize("is_training", [False, True])
def test_a_fresh_expert_changes_nothing(is_training: bool) -> None:
    model = random_model(tiny_config()).train(is_training)
    for layer in model.backbone.layers:
        materialise(layer.expert)
    batch = batch_of(model.config, "speech", "music", "speech")
    assert torch.equal(velocity(model, batch), velocity(twin_without_expert(model), batch))


@pytest.mark.parametrize("is_training", [False, True])
def test_other_documents_stay_bitwise_what_they_are_without_expert(is_training: bool) -> None:
    model = random_model(tiny_config()).train(is_training)
    twin = twin_without_expert(model)
    batch = batch_of(model.config, "sound", "music")
    assert torch.equal(velocity(model, batch), velocity(twin, batch))

    mixed = batch_of(model.config, "speech", "music")
    with_expert, without = velocity(model, mixed), velocity(twin, mixed)
    speech = mixed.document == 0
    assert torch.equal(with_expert[~speech], without[~speech])
    assert ((with_expert - without)[speech & mixed.flow_mask].abs().amax(-1) > 1e-4).all()


def test_training_without_speech_still_gives_every_parameter_a_gradient() -> None:
    model = random_model(tiny_config()).train()
    batch = batch_of(model.config, "music")
    rows: list[int] = []
    experts = [layer.expert for layer in model.backbone.layers]
    for expert in experts:
        expert.register_forward_hook(lambda _, inputs, __: rows.append(inputs[0].shape[0]))
    sums = losses(model(batch), batch)
    loss_from(sums, sums.flow_count, sums.stop_count).backward()
    # One row, not an empty tensor: some kernels refuse those, and compilers specialise on them.
    assert rows == [1] * len(experts)
    weights = [weight for expert in experts for weight in expert.parameters()]
    assert all(weight.grad is not None and not weight.grad.any() for weight in weights)
    assert all(p.grad is not None for p in model.parameters())


def test_the_expert_learns_from_speech_only() -> None:
    model = random_model(tiny_config()).train()

    def gradients(documents: TrainingBatch) -> dict[str, Tensor]:
        model.zero_grad()
        losses(model(documents), documents).flow_sum.backward()
        return {
            n: p.grad.clone()
            for n, p in model.named_parameters()
            if ".expert." in n and p.grad is not None
        }

    alone = gradients(batch_of(model.config, "speech"))
    mixed = gradients(batch_of(model.config, "speech", "sound"))
    for name, gradient in alone.items():
        assert gradient.abs().max() > 0
        torch.testing.assert_close(mixed[name], gradient, atol=1e-4, rtol=1e-4)


def test_inference_calls_the_expert_only_where_a_token_routes_to_it() -> None:
    model = random_model(tiny_config())
    calls = []
    for layer in model.backbone.layers:
        layer.expert.register_forward_hook(lambda *_: calls.append(1))
    velocity(model, batch_of(model.config, "sound", "music"))
    assert not calls
    velocity(model, batch_of(model.config, "sound", "speech"))
    assert len(calls) == 3


def test_routes_of_all_some_and_no_rows() -> None:
    device = torch.device("cpu")
    some = route_rows([True, False], 3, device)
    assert some is not None
    assert some.tokens is not None
    assert some.tokens.tolist() == [0, 1, 2]
    everything = route_rows([True, True], 3, device)
    assert everything is not None
    assert everything.tokens is None
    assert route_rows([False, False], 3, device) is None
