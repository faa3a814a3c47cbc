"""Packing."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest
import torch

from model.batch import pack
from model.config import MODALITIES
from model.sequence import CLEAN, NOISY, PADDING, PREFIX, document_length
from tests.factories.model import SPEAKER_ID, random_document, tiny_config

CONFIG = tiny_config()


def test_a_document_is_laid_out_as_prefix_clean_frames_and_noisy_copies() -> None:
    config = tiny_config(frames_per_block=2)
    document = random_document(config, 0, num_text=2, num_blocks=2, num_copies=2)
    batch = pack([[document]], config, 20)
    own = slice(document.length())
    assert own.stop == document_length(2, 4, 2) == 14
    assert batch.segment[0, own].tolist() == [PREFIX] * 2 + [CLEAN] * 4 + [NOISY] * 8
    assert batch.block[0, own].tolist() == [0, 1] + [0, 0, 1, 1] * 3
    assert batch.copy[0, own].tolist() == [0] * 6 + [0] * 4 + [1] * 4
    assert batch.document[0].tolist() == [0] * 14 + [PADDING] * 6


@pytest.mark.parametrize("durations", [(), (8.0, 4.0)])
def test_noisy_copies_stand_at_the_positions_of_their_clean_twins(
    durations: tuple[float, ...],
) -> None:
    document = random_document(CONFIG, 0, num_text=3, num_copies=2, durations=durations)
    batch = pack([[document]], CONFIG, 64)
    position, segment = batch.position[0], batch.segment[0]
    clean = position[segment == CLEAN]
    expected = [3.0 + frame for frame in range(12)]
    if durations:  # frames 0 to 7 lie along the first word, the others along the second
        expected = [(frame + 0.5) / 8 for frame in range(8)]
        expected += [1 + (frame + 0.5) / 4 for frame in range(4)]
    assert clean.tolist() == expected
    for copy in (0, 1):
        assert torch.equal(position[(segment == NOISY) & (batch.copy[0] == copy)], clean)
    assert position[:3].tolist() == [0, 1, 2]


def test_noisy_inputs_lie_on_the_path_and_targets_lead_to_the_latents() -> None:
    document = random_document(CONFIG, 0, num_copies=2, history_noise=0.3)
    batch = pack([[document]], CONFIG, 64)
    segment = batch.segment[0]
    noisy = (batch.document[0] == 0) & (segment == NOISY)
    state, velocity = batch.latent_inputs[0, noisy], batch.velocity_target[0, noisy]
    time = batch.flow_time[0, noisy, None]
    both = document.latents.repeat(2, 1)
    torch.testing.assert_close(state + (1 - time) * velocity, both)
    torch.testing.assert_close(state - time * velocity, document.noise.flatten(0, 1))
    clean = segment == CLEAN
    assert torch.equal(batch.latent_inputs[0, clean], document.history)
    assert (batch.flow_time[0, ~noisy] == 0).all()
    assert torch.equal(batch.flow_mask[0], noisy)


def test_every_frame_of_a_block_shares_its_flow_time() -> None:
    document = random_document(CONFIG, 0, num_copies=2)
    batch = pack([[document]], CONFIG, 64)
    times = batch.flow_time[0, batch.segment[0] == NOISY].reshape(2, 3, 4)
    assert torch.equal(times, document.flow_time[..., None].expand(-1, -1, 4))


@pytest.mark.parametrize("num_valid_frames", [9, 11, 12])
def test_stop_is_one_from_the_last_valid_frame_on(num_valid_frames: int) -> None:
    document = random_document(CONFIG, 0, num_valid_frames=num_valid_frames)
    batch = pack([[document]], CONFIG, 40)
    target = batch.stop_target[0, batch.segment[0] == CLEAN]
    expected = [0.0] * (num_valid_frames - 1) + [1.0] * (12 - num_valid_frames + 1)
    assert target.tolist() == expected
    assert torch.equal(batch.stop_mask[0], batch.segment[0] == CLEAN)


def test_a_crop_that_does_not_end_its_clip_has_no_stop_loss() -> None:
    batch = pack([[random_document(CONFIG, 0, has_stop=False)]], CONFIG, 40)
    assert not batch.stop_mask.any()
    assert batch.flow_mask.any()


def test_rows_hold_documents_one_after_the_other_and_padding_belongs_to_none() -> None:
    speech = random_document(CONFIG, 0, modality="speech", has_speaker=True)
    music = random_document(CONFIG, 1, modality="music", num_text=2, num_blocks=1)
    batch = pack([[speech, music], [music]], CONFIG, 48)
    assert batch.document[0].tolist() == [0] * 29 + [1] * 10 + [PADDING] * 9
    assert batch.document[1].tolist() == [0] * 10 + [PADDING] * 38
    assert batch.expert_tokens.tolist() == (batch.document[0] == 0).nonzero().flatten().tolist()
    labels = batch.modality[0]
    assert (labels[batch.document[0] == 1] == MODALITIES.index("music")).all()
    assert (labels[batch.document[0] == PADDING] == PADDING).all()
    assert batch.token_ids[0, 0] == SPEAKER_ID
    assert torch.equal(batch.token_ids[0, :5], speech.token_ids)
    padding = batch.document == PADDING
    assert not (batch.flow_mask | batch.stop_mask)[padding].any()
    assert (batch.segment[padding] == PREFIX).all()
    assert speech.speaker is not None
    assert torch.equal(batch.speaker[0, 0], speech.speaker)
    assert not batch.speaker[1].any()
    assert torch.equal(batch.to("cpu").latent_inputs, batch.latent_inputs)


def test_a_row_that_does_not_fit_is_refused() -> None:
    document = random_document(CONFIG, 0)
    assert pack([[document]], CONFIG, 29).document.shape == (1, 29)
    with pytest.raises(ValueError, match="row 1 takes 58 positions and pack_length is 57"):
        pack([[document], [document, document]], CONFIG, 57)
    with pytest.raises(ValueError, match="at least one"):
        pack([[document], []], CONFIG, 57)
    with pytest.raises(ValueError, match="at least one"):
        pack([], CONFIG, 57)


@pytest.mark.parametrize(
    ("model_changes", "document_changes", "message"),
    [
        ({"latent_dim": 7}, {}, "latents are 6 wide and the model takes 7"),
        ({"frames_per_block": 6}, {}, "flow_time has 3 blocks of 6 frames for 12 frames"),
        ({}, {"token_ids": torch.tensor([50])}, "vocabulary has 50"),
        ({}, {"token_ids": torch.tensor([-1])}, "reach from -1"),
        ({}, {"token_ids": torch.tensor([SPEAKER_ID])}, "no voice embedding"),
        ({}, {"speaker": torch.zeros(5)}, "needs the speaker token (40)"),
        ({"speaker_dim": 4}, {"has_speaker": True}, "5 wide and the model takes 4"),
        ({"speaker_id": None}, {"has_speaker": True}, "needs the speaker token (None)"),
    ],
)
def test_a_document_that_does_not_suit_the_model_is_refused(
    model_changes: dict[str, Any], document_changes: dict[str, Any], message: str
) -> None:
    document = random_document(CONFIG, 0, **document_changes)
    with pytest.raises(ValueError, match=re.escape(message)):
        pack([[document]], dataclasses.replace(CONFIG, **model_changes), 64)
