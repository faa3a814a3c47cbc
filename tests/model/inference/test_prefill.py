"""A prefix and its prompt are read as the training forward reads them, without a mask."""

from __future__ import annotations

import pytest
import torch

from model.attention import arflow_mask, attend
from model.audiocalm import AudioCALM
from model.experts import Route
from model.inference.cache import KeysValues
from model.inference.prefill import aligned, read_prefix
from model.sequence import AudioPositions, MaskIndices
from tests.factories.model import AUDIO_ID, SPEAKER_ID, random_model, tiny_config

TOLERANCE = 1e-5
"""float32: the same sums, over keys in another order."""
IDS = (SPEAKER_ID, 1, 2, 3, 4, AUDIO_ID)


def read(
    model: AudioCALM, ids: tuple[int, ...], prompt: torch.Tensor | None = None
) -> tuple[KeysValues, torch.Tensor]:
    given = torch.zeros(0, 6, device=model.device) if prompt is None else prompt
    at = AudioPositions.after(len(ids))
    with torch.no_grad():
        return read_prefix(
            model, model.backbone, ids, given, at, uses_expert=True, speaker=torch.ones(5)
        )


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("num_frames", [0, 16])
def test_keys_are_those_under_the_training_mask(num_frames: int, device: str) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    model = random_model().to(device)
    prompt = torch.linspace(-1, 1, 6 * num_frames).reshape(num_frames, 6).to(device)
    position = torch.arange(len(IDS) + num_frames, dtype=torch.int32)[None]
    is_clean = position >= len(IDS)
    block = (position - len(IDS)) // model.config.frames_per_block
    block = torch.where(is_clean, block, position)
    none = torch.zeros_like(position)
    mask = arflow_mask(MaskIndices(none, is_clean.int(), block, none)).to(device)
    expected: list[torch.Tensor] = []

    def record(layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor):
        expected.append(key)
        return attend(query, key, value, mask)

    (keys, _), states = read(model, IDS, prompt)
    with torch.no_grad():
        speaker = torch.ones(1, 1, 5, device=device)
        prefix = model.embed_prefix(torch.tensor([IDS], device=device), speaker)
        embeddings = torch.cat([prefix, model.embed_clean(prompt)[None]], dim=1)
        rotary = model.backbone.rotary(position.to(device), torch.float32)
        hidden = model.backbone(embeddings, rotary, record, Route(None))
    torch.testing.assert_close(keys, torch.stack(expected), atol=TOLERANCE, rtol=TOLERANCE)
    torch.testing.assert_close(states, hidden[0, : len(IDS)], atol=TOLERANCE, rtol=TOLERANCE)


def test_aligned_rows_end_together_behind_zeros() -> None:
    model = random_model()
    (short, _), (long, _) = read(model, (3, AUDIO_ID)), read(model, (1, 2, 3, 4, AUDIO_ID))
    (keys, values), padding = aligned([long, short])
    assert padding == (0, 3)
    assert torch.equal(keys[:, :1], long[0])
    assert torch.equal(values[:, 1:, :, 3:], short[1])
    assert not keys[:, 1:, :, :3].any()


def test_the_states_of_a_prefix_are_returned_whatever_follows_it() -> None:
    model = random_model()
    prompt = torch.linspace(-1, 1, 48).reshape(8, 6)
    torch.testing.assert_close(
        read(model, IDS, prompt)[1], read(model, IDS)[1], atol=TOLERANCE, rtol=TOLERANCE
    )


@pytest.mark.parametrize(("num_past", "num_frames"), [(3, 0), (3, 8), (6, 8)])
def test_a_row_goes_on_from_the_tokens_read_before(num_past: int, num_frames: int) -> None:
    model = random_model(tiny_config(paces_speech=True))
    prompt = torch.linspace(-1, 1, 6 * num_frames).reshape(num_frames, 6)
    at = AudioPositions.along_words(len(IDS), [4.0, 2.5])
    none = torch.zeros(0, 6)

    def row(
        ids: tuple[int, ...], frames: torch.Tensor, num_words: int, past: KeysValues | None = None
    ) -> tuple[KeysValues, torch.Tensor]:
        with torch.no_grad():
            return read_prefix(
                model,
                model.backbone,
                ids,
                frames,
                at,
                uses_expert=True,
                speaker=torch.ones(5),
                num_words=num_words,
                past=past,
            )

    (keys, values), states = row(IDS, prompt, 2)
    past, _ = row(IDS[:num_past], none, 2 if num_past == len(IDS) else 0)
    (found_keys, found_values), found_states = row(IDS, prompt, 2, past)
    torch.testing.assert_close(found_keys, keys, atol=TOLERANCE, rtol=TOLERANCE)
    torch.testing.assert_close(found_values, values, atol=TOLERANCE, rtol=TOLERANCE)
    torch.testing.assert_close(found_states, states[num_past:], atol=TOLERANCE, rtol=TOLERANCE)
