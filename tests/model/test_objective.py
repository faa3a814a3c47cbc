"""Loss sums: their formula, and that splitting a batch changes nothing."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from model.audiocalm import AudioCALM, ModelOutput
from model.batch import Document, pack
from model.objective import (
    NUM_TIME_BINS,
    VECTOR_LENGTH,
    LossSums,
    flow_by_document,
    loss_from,
    losses,
)
from model.sequence import CLEAN, NOISY
from tests.factories.model import random_document, random_model, tiny_config

CONFIG = tiny_config()


def documents() -> list[Document]:
    return [
        random_document(CONFIG, 0, modality="speech", num_blocks=2, num_valid_frames=6),
        random_document(CONFIG, 1, modality="music", num_blocks=4, has_stop=False),
        random_document(CONFIG, 2, modality="sound", num_blocks=1, num_copies=2),
    ]


def test_losses_follow_their_formula() -> None:
    model, batch = random_model(), pack([documents()], CONFIG, 96)
    output = model(batch)
    sums = losses(output, batch)
    noisy = batch.segment == NOISY
    error = (output.velocity - batch.velocity_target)[noisy].square()
    torch.testing.assert_close(sums.flow_sum, error.sum() / 6)
    assert sums.flow_count == noisy.sum() == 8 + 16 + 8
    clean = (batch.segment == CLEAN) & (batch.document != 1)
    stop = F.binary_cross_entropy_with_logits(output.stop_logit[clean], batch.stop_target[clean])
    torch.testing.assert_close(sums.stop_sum / sums.stop_count, stop)
    assert sums.stop_count == 8 + 4
    assert sums.modality_count.tolist() == [8, 8, 16]
    music = noisy & (batch.document == 1)
    expected = (output.velocity - batch.velocity_target)[music].square().mean()
    assert sums.means()["flow/music"] == pytest.approx(expected.item(), rel=1e-5)


def test_groups_add_up_to_the_total() -> None:
    batch = pack([documents()], CONFIG, 96)
    sums = losses(random_model()(batch), batch)
    for part in (sums.modality_sum, sums.bin_sum):
        torch.testing.assert_close(part.sum(), sums.flow_sum.detach())
    for count in (sums.modality_count, sums.bin_count):
        assert count.sum() == sums.flow_count
    time = batch.flow_time[batch.flow_mask]
    for index in range(NUM_TIME_BINS):
        inside = (time >= index / NUM_TIME_BINS) & (time < (index + 1) / NUM_TIME_BINS)
        assert sums.bin_count[index] == inside.sum()


def test_the_loss_of_a_document_is_that_of_a_batch_of_its_own() -> None:
    model, rows = random_model(), [documents(), documents()[:1]]
    batch = pack(rows, CONFIG, 96)
    output = model(batch)
    sums, counts = flow_by_document(output, batch)
    assert counts.tolist() == [[8, 16, 8], [8, 0, 0]]
    torch.testing.assert_close(sums.sum(), losses(output, batch).flow_sum.detach())
    for number, document in enumerate(documents()):
        alone = pack([[document]], CONFIG, 96)
        torch.testing.assert_close(sums[0, number], losses(model(alone), alone).flow_sum.detach())


def test_a_batch_split_over_ranks_and_steps_has_the_loss_and_gradient_of_the_whole() -> None:
    model = random_model().train()
    first, second, third = documents()

    def gradient() -> torch.Tensor:
        parts = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        model.zero_grad()
        return torch.cat(parts)

    whole = pack([[first, second, third]], CONFIG, 96)
    sums = losses(model(whole), whole)
    total = loss_from(sums, sums.flow_count, sums.stop_count, stop_weight=0.3)
    total.backward()
    expected = gradient()

    shares = torch.zeros(())
    batches = [pack([[first]], CONFIG, 64), pack([[second], [third]], CONFIG, 96)]
    vectors = [losses(model(batch), batch).to_vector() for batch in batches]
    everywhere = LossSums.from_vector(torch.stack(vectors).sum(0))
    for batch in batches:
        share = loss_from(
            losses(model(batch), batch), everywhere.flow_count, everywhere.stop_count, 0.3
        )
        share.backward()
        shares += share.detach()
    torch.testing.assert_close(shares, total.detach())
    torch.testing.assert_close(gradient(), expected, atol=1e-5, rtol=1e-4)
    assert everywhere.means() == pytest.approx(sums.means(), rel=1e-5)


def test_the_vector_form_gives_everything_back() -> None:
    batch = pack([documents()], CONFIG, 96)
    sums = losses(random_model()(batch), batch)
    vector = sums.to_vector()
    assert vector.shape == (VECTOR_LENGTH,)
    again = LossSums.from_vector(vector)
    assert torch.equal(again.to_vector(), vector)
    assert again.means() == pytest.approx(sums.means())
    with pytest.raises(ValueError, match=f"expected \\({VECTOR_LENGTH},\\)"):
        LossSums.from_vector(vector[1:])


def test_nothing_to_stop_on_costs_nothing() -> None:
    batch = pack([[random_document(CONFIG, 1, has_stop=False)]], CONFIG, 64)
    sums = losses(AudioCALM(CONFIG)(batch), batch)
    assert "stop" not in sums.means()
    loss = loss_from(sums, sums.flow_count, sums.stop_count)
    torch.testing.assert_close(loss, sums.flow_sum / sums.flow_count)


def test_padding_carries_no_loss_whatever_is_predicted_there() -> None:
    model = random_model()
    document = random_document(CONFIG, 0)
    short, long = (pack([[document]], CONFIG, length) for length in (29, 64))
    output = model(long)
    output.velocity[:, 29:] = torch.nan
    output.stop_logit[:, 29:] = torch.nan
    torch.testing.assert_close(
        losses(output, long).to_vector(),
        losses(model(short), short).to_vector(),
        atol=1e-4,
        rtol=1e-5,
    )


def test_the_duration_loss_is_the_poisson_deviance_of_the_words_alone() -> None:
    config = tiny_config(paces_speech=True)
    durations = (2.0, 0.0, 10.0)
    batch = pack([[random_document(config, 0, num_text=5, durations=durations)]], config, 64)
    spoken = batch.is_word
    log_duration = torch.full(spoken.shape, 1e4)  # elsewhere, where it counts for nothing
    log_duration[spoken] = torch.tensor([2.0, 0.5, 5.0]).log()
    log_duration.requires_grad_()
    output = ModelOutput(
        velocity=batch.velocity_target.clone(),
        stop_logit=torch.zeros(spoken.shape),
        log_duration=log_duration,
    )
    sums = losses(output, batch)
    # d log(d / m) - d + m: nothing for 2 of 2, 0.5 for 0 of 0.5, 10 log 2 - 5 for 10 of 5.
    assert float(sums.duration_sum.detach()) == pytest.approx(0.5 + 10 * math.log(2) - 5, rel=1e-5)
    assert float(sums.duration_count) == 3
    sums.duration_sum.backward()
    expected = torch.zeros(spoken.shape)
    expected[spoken] = torch.tensor([0.0, 0.5, -5.0])  # m - d
    torch.testing.assert_close(log_duration.grad, expected, atol=1e-5, rtol=0)
