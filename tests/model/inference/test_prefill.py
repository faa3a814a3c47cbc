"""Prefixes are read as the training forward reads them, whatever their padding."""

from __future__ import annotations

import torch

from model.audiocalm import AudioCALM
from model.inference.cache import KeysValues
from model.inference.prefill import aligned, read_prefixes
from model.sequence import AudioPositions
from tests.factories.model import AUDIO_ID, SPEAKER_ID, random_model

TOLERANCE = 1e-5
"""float32: the same sums, over keys in another order."""


def read(
    model: AudioCALM, *rows: tuple[int, ...], prompt: torch.Tensor | None = None
) -> KeysValues:
    given = torch.zeros(0, 6) if prompt is None else prompt
    positions = [AudioPositions.after(len(row)) for row in rows]
    with torch.no_grad():
        return read_prefixes(
            model, model.backbone, rows, given, positions, uses_expert=True, speaker=torch.ones(5)
        )[0]


def test_padding_changes_no_key_of_a_prefix() -> None:
    model = random_model()
    prompt = torch.linspace(-1, 1, 48).reshape(8, 6)
    short, long = (3, AUDIO_ID), (SPEAKER_ID, 1, 2, 3, 4, AUDIO_ID)
    both = read(model, long, short, prompt=prompt)
    for index, ids in enumerate((long, short)):
        alone = read(model, ids, prompt=prompt)
        for given, expected in zip(both, alone, strict=True):
            held = given[:, index : index + 1, :, len(long) - len(ids) :]
            torch.testing.assert_close(held, expected, atol=TOLERANCE, rtol=TOLERANCE)


def test_aligned_prefixes_end_together_behind_zeros() -> None:
    model = random_model()
    short, long = read(model, (3, AUDIO_ID)), read(model, (1, 2, 3, 4, AUDIO_ID))
    keys, values = aligned([long, short])
    assert torch.equal(keys[:, :1], long[0])
    assert torch.equal(values[:, 1:, :, 3:], short[1])
    assert not keys[:, 1:, :, :3].any()


def test_the_state_that_ends_a_prefix_is_returned_whatever_follows_it() -> None:
    model = random_model()
    short, long = (3, AUDIO_ID), (SPEAKER_ID, 1, 2, 3, 4, AUDIO_ID)
    prompt = torch.linspace(-1, 1, 48).reshape(8, 6)

    def ends(*rows: tuple[int, ...], prompt: torch.Tensor) -> torch.Tensor:
        positions = [AudioPositions.along_words(len(row), 1, 2.0) for row in rows]
        with torch.no_grad():
            return read_prefixes(
                model,
                model.backbone,
                rows,
                prompt,
                positions,
                uses_expert=True,
                speaker=torch.ones(5),
            )[1]

    both = ends(long, short, prompt=prompt)
    for index, ids in enumerate((long, short)):
        torch.testing.assert_close(
            both[index], ends(ids, prompt=prompt[:0])[0], atol=TOLERANCE, rtol=TOLERANCE
        )
