"""Who influences whom in the packed forward pass, by perturbation and by gradient."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from model.audiocalm import AudioCALM
from model.batch import TrainingBatch, pack
from model.config import HeadConfig
from model.objective import losses
from model.sequence import CLEAN, NOISY, PADDING, PREFIX
from tests.factories.model import (
    LOCAL_HEAD,
    SPEAKER_ID,
    random_document,
    random_model,
    tiny_config,
)

CONFIG = tiny_config()


def two_documents(
    num_copies: int = 2, pack_length: int = 72, head: HeadConfig = CONFIG.head
) -> TrainingBatch:
    documents = [
        random_document(CONFIG, 0, num_copies=num_copies, modality="speech", has_speaker=True),
        random_document(CONFIG, 1, num_text=3, num_blocks=2),
    ]
    return pack([documents], dataclasses.replace(CONFIG, head=head), pack_length)


def moved(model: AudioCALM, batch: TrainingBatch, at: Tensor) -> Tensor:
    """Positions whose hidden state changes when latents at the given positions do."""
    shift = 3 * at[..., None].float()
    changed = dataclasses.replace(batch, latent_inputs=batch.latent_inputs + shift)
    with torch.no_grad():
        before, after = (model.hidden_states(b) for b in (batch, changed))
    return (before != after).any(-1)


@pytest.mark.parametrize("block", [0, 1, 2])
def test_a_clean_block_reaches_later_noisy_blocks_and_clean_blocks_from_itself_on(
    block: int,
) -> None:
    batch = two_documents()
    mine = batch.document == 0
    at = mine & (batch.segment == CLEAN) & (batch.block == block)
    reached = (batch.segment == CLEAN) & (batch.block >= block)
    reached |= (batch.segment == NOISY) & (batch.block > block)
    assert torch.equal(moved(random_model(), batch, at), mine & reached)


@pytest.mark.parametrize("copy", [0, 1])
def test_a_noisy_block_reaches_only_itself(copy: int) -> None:
    batch = two_documents()
    at = (batch.document == 0) & (batch.segment == NOISY) & (batch.block == 1)
    at &= batch.copy == copy
    assert torch.equal(moved(random_model(), batch, at), at)


def test_loss_at_a_block_sends_gradients_to_prefix_voice_and_earlier_clean_blocks_only() -> None:
    model, batch = random_model(), two_documents()
    latents = batch.latent_inputs.clone().requires_grad_()
    speaker = batch.speaker.clone().requires_grad_()
    output = model(dataclasses.replace(batch, latent_inputs=latents, speaker=speaker))
    chosen = (batch.document == 0) & (batch.segment == NOISY)
    chosen &= (batch.block == 1) & (batch.copy == 1)
    output.velocity[chosen].sum().backward()
    assert latents.grad is not None
    assert speaker.grad is not None
    has_gradient = latents.grad.abs().amax(-1) > 0
    earlier = (batch.document == 0) & (batch.segment == CLEAN) & (batch.block == 0)
    assert torch.equal(has_gradient, earlier | chosen)
    assert speaker.grad[0, 0].abs().max() > 0
    assert not speaker.grad[0, 1].any()
    embedding = model.backbone.embed_tokens.weight.grad
    assert embedding is not None
    used = batch.token_ids[0, :5].tolist()
    assert set(embedding.abs().amax(1).nonzero().flatten().tolist()) == set(used) - {SPEAKER_ID}


def test_the_stop_loss_does_not_bend_the_backbone() -> None:
    model, batch = random_model(), two_documents()
    model(batch).stop_logit.sum().backward()
    trained = {name for name, p in model.named_parameters() if p.grad is not None}
    assert trained == {f"stop_head.{name}" for name, _ in model.stop_head.named_parameters()}


def test_flow_time_touches_noisy_positions_only() -> None:
    model, batch = random_model(), two_documents()
    later = dataclasses.replace(batch, flow_time=batch.flow_time * 0.5 + 0.4)
    with torch.no_grad():
        before, after = (model.hidden_states(b) for b in (batch, later))
    assert torch.equal((before != after).any(-1), batch.segment == NOISY)


def test_padding_and_neighbours_never_change_a_result() -> None:
    model = random_model()
    document = random_document(CONFIG, 0, num_copies=2)
    other = random_document(CONFIG, 1, num_text=9, modality="speech")
    alone = pack([[document]], CONFIG, document.length())
    with torch.no_grad():
        expected = model(alone).velocity[alone.flow_mask]
        packed = pack([[other, document], [document]], CONFIG, 90)
        given = model(packed).velocity
    for row, number in ((0, 1), (1, 0)):
        mine = packed.flow_mask[row] & (packed.document[row] == number)
        # Another row of the batch may go through another matrix kernel.
        torch.testing.assert_close(given[row, mine], expected, atol=1e-5, rtol=1e-5)


def test_noisy_copies_of_the_same_noise_agree() -> None:
    document = random_document(CONFIG, 0, num_copies=2)
    same = dataclasses.replace(
        document,
        noise=document.noise[:1].expand(2, -1, -1),
        flow_time=document.flow_time[:1].expand(2, -1),
    )
    batch = pack([[same]], CONFIG, 41)
    with torch.no_grad():
        velocity = random_model()(batch).velocity
    first, second = (velocity[batch.flow_mask & (batch.copy == copy)] for copy in (0, 1))
    torch.testing.assert_close(first, second, atol=1e-5, rtol=1e-5)


def test_the_voice_takes_the_place_of_the_speaker_token() -> None:
    model = random_model()
    batch = two_documents()
    other = dataclasses.replace(batch, speaker=batch.speaker + 1)
    token = model.backbone.embed_tokens.weight
    with torch.no_grad():
        base = model.hidden_states(batch)
        revoiced = model.hidden_states(other)
        token[SPEAKER_ID] += 1
        retokened = model.hidden_states(batch)
    assert torch.equal((base != revoiced).any(-1), batch.document == 0)
    assert torch.equal(base, retokened)


def test_a_model_without_voices_has_no_projection() -> None:
    model = AudioCALM(dataclasses.replace(CONFIG, speaker_id=None))
    assert not [name for name, _ in model.named_parameters() if "speaker" in name]
    batch = pack([[random_document(CONFIG, 0)]], model.config, 32)
    assert model(batch).velocity.shape == (1, 32, 6)


def test_a_fresh_model_predicts_zero_velocity() -> None:
    assert not AudioCALM(CONFIG)(two_documents()).velocity.any()


def test_latents_are_normalised_per_channel_and_back() -> None:
    model = AudioCALM(CONFIG)
    mean, std = torch.linspace(-2, 2, 6), torch.linspace(0, 3, 6)
    model.set_latent_stats(mean, std)
    raw = torch.randn(7, 6) * std + mean
    normal = model.normalise(raw)
    torch.testing.assert_close(normal[:, 1:], ((raw - mean) / std)[:, 1:])
    # A dead channel stays finite.
    assert normal.isfinite().all()
    torch.testing.assert_close(model.denormalise(normal), raw)


@pytest.mark.parametrize(
    "cast", [lambda m: m.to(torch.bfloat16), lambda m: m.bfloat16(), lambda m: m.half().float()]
)
def test_latent_statistics_survive_a_cast_of_the_module(
    cast: Callable[[AudioCALM], AudioCALM],
) -> None:
    model = AudioCALM(CONFIG)
    mean = torch.linspace(0.1, 0.7, 6)
    model.set_latent_stats(mean, mean)
    assert torch.equal(cast(model).latent_mean, mean)
    assert torch.equal(cast(model).state_dict()["latent_std"], mean)


def test_the_local_head_packs_the_backbone_with_blank_frames_for_all_noisy_copies() -> None:
    config = tiny_config(head=LOCAL_HEAD)
    document = random_document(config, 0, num_copies=3)
    batch = pack([[document, document], [document]], config, 64)
    assert batch.backbone_length == 64
    assert document.length("local") == 29
    is_blank = batch.segment[:, :64] == NOISY
    assert is_blank.sum() == 3 * 12
    assert not batch.latent_inputs[:, :64][is_blank].any()
    assert not batch.flow_mask[:, :64].any()
    assert (batch.document[:, 64:] >= 0).sum() == batch.flow_mask.sum() == 3 * 3 * 12
    model = random_model(config)
    seen: list[int] = []
    model.backbone.register_forward_hook(lambda _, given, __: seen.append(given[0].shape[1]))
    output = model(batch)
    assert seen == [64]
    assert output.velocity.shape == (*batch.document.shape, 6)
    sums = losses(output, batch)
    assert sums.flow_count == 108
    assert sums.stop_count == 36


def test_the_local_head_predicts_a_block_from_the_prefix_and_earlier_clean_blocks_alone() -> None:
    config = tiny_config(head=LOCAL_HEAD)
    model = random_model(config)
    document = random_document(config, 0, num_blocks=4, num_copies=2)
    other = random_document(config, 1)
    batch = pack([[other, document]], config, 80)
    inputs = batch.latent_inputs.clone().requires_grad_()
    embedding = model.backbone.embed_tokens.weight
    mine = batch.document[0] == 1
    is_apart = torch.arange(len(mine)) >= batch.backbone_length
    for block in range(4):
        asked = mine & (batch.segment[0] == NOISY) & (batch.block[0] == block)
        blank = asked & ~is_apart
        asked &= is_apart & (batch.copy[0] == 1)
        velocity = model(dataclasses.replace(batch, latent_inputs=inputs)).velocity[0, asked]
        by_input, by_token = torch.autograd.grad(velocity.square().sum(), (inputs, embedding))
        read = by_input[0].abs().amax(-1) > 0
        clean = mine & (batch.segment[0] == CLEAN) & (batch.block[0] < block)
        assert torch.equal(read, clean | blank | asked), f"block {block}"
        tokens = set(by_token.abs().amax(1).nonzero().flatten().tolist())
        assert tokens == set(document.token_ids.tolist())


def test_the_local_head_joins_a_block_with_the_blank_frames_in_its_place() -> None:
    config = tiny_config(head=LOCAL_HEAD)
    batch = pack([[random_document(config, i, num_copies=2) for i in range(2)]] * 2, config, 64)
    for frames, predictors in zip(batch.noisy_frames, batch.predictors, strict=True):
        assert (batch.segment[:, :64].flatten()[predictors] == NOISY).all()
        for name in ("document", "block", "position"):
            index = getattr(batch, name)
            assert torch.equal(index.flatten()[frames], index[:, :64].flatten()[predictors]), name


def test_the_thin_head_reads_the_noisy_frames_themselves() -> None:
    batch = two_documents()
    assert torch.equal(batch.predictors, batch.noisy_frames)


def test_a_fresh_local_head_predicts_zero_velocity_and_all_of_it_learns() -> None:
    config = tiny_config(head=LOCAL_HEAD)
    batch = pack([[random_document(config, 0, modality="speech", has_speaker=True)]], config, 32)
    assert not AudioCALM(config)(batch).velocity.any()
    model = random_model(config).train()
    output = model(batch)
    (output.velocity.square().sum() + output.stop_logit.sum()).backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None]


def test_padding_positions_are_finite() -> None:
    batch = two_documents(pack_length=128)
    output = random_model()(batch)
    assert (batch.document == PADDING).any()
    assert (batch.segment == PREFIX).any()
    assert output.velocity.isfinite().all()


def gradients(model: AudioCALM, batch: TrainingBatch) -> list[Tensor]:
    model.zero_grad()
    model(batch).velocity.square().sum().backward()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("head", [tiny_config().head, LOCAL_HEAD], ids=["thin", "local"])
def test_recomputing_the_layers_gives_the_same_gradients(head: HeadConfig) -> None:
    model, batch = random_model(tiny_config(head=head)).train(), two_documents(head=head)
    plain = gradients(model, batch)
    calls: list[int] = []
    model.backbone.layers[0].register_forward_pre_hook(lambda *_: calls.append(1))
    model.backbone.recomputes_layers = True
    for given, expected in zip(gradients(model, batch), plain, strict=True):
        assert torch.equal(given, expected)
    assert len(calls) == 2


COMPILED = """
import dataclasses, torch
from tests.factories.model import random_model, tiny_config
from tests.model.test_audiocalm import gradients, two_documents

backbone = dataclasses.replace(tiny_config().backbone, num_layers=1)
model = random_model(tiny_config(backbone=backbone)).train()
plain = gradients(model, two_documents())
model.compile_layers()
model.backbone.recomputes_layers = True
for given, expected in zip(gradients(model, two_documents()), plain, strict=True):
    # float32: fused sums are taken in another order.
    torch.testing.assert_close(given, expected, atol=1e-3, rtol=1e-4)
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling for a CPU needs g++")
def test_layers_can_be_compiled_and_recomputed_at_once() -> None:
    # In a process of its own: the type checks of the tests cannot be traced.
    subprocess.run([sys.executable, "-c", COMPILED], check=True)


def test_a_bfloat16_model_trains_with_float32_outputs() -> None:
    model, batch = random_model().to(torch.bfloat16).train(), two_documents()
    output = model(batch)
    assert output.velocity.dtype == output.stop_logit.dtype == torch.float32
    (output.velocity.square().sum() + output.stop_logit.sum()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
