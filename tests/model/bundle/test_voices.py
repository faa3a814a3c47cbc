"""Voices as a safetensors file."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load

from model.bundle.voices import Voice, spoken_as, voices_from_bytes, voices_to_bytes

VOICES = {
    name: Voice(torch.arange(5) + float(number), f"Voice {name}, \u00e9loquent" if number else "")
    for number, name in enumerate(("eve", "adam", "linda", "henry", "zoe"))
}


def test_voices_come_back_with_their_descriptions() -> None:
    found = voices_from_bytes(voices_to_bytes(VOICES))
    assert set(found) == set(VOICES)
    for name, voice in VOICES.items():
        assert torch.equal(found[name].embedding, voice.embedding)
        assert found[name].description == voice.description


def test_equal_voices_give_equal_bytes_that_the_library_reads() -> None:
    payloads = {voices_to_bytes(VOICES) for _ in range(10)}
    assert len(payloads) == 1
    tensors = load(payloads.pop())
    assert torch.equal(tensors["linda"], VOICES["linda"].embedding)
    assert voices_from_bytes(voices_to_bytes({})) == {}


@pytest.mark.parametrize(
    ("voice", "description", "default_voice", "expected"),
    [
        (None, None, "adam", ("adam", "Voice adam, \u00e9loquent")),
        (None, None, None, (None, "plain")),
        (None, "A choir.", "adam", (None, "A choir.")),
        ("linda", None, "adam", ("linda", "Voice linda, \u00e9loquent")),
        ("linda", "A choir.", "adam", ("linda", "A choir.")),
        ("eve", None, "adam", ("eve", "plain")),  # it has no description
        ("me.wav", None, "adam", ("me.wav", "plain")),
    ],
)
def test_the_default_voice_speaks_words_without_voice_and_description(
    voice: str | None,
    description: str | None,
    default_voice: str | None,
    expected: tuple[str | None, str],
) -> None:
    found = spoken_as(
        voice, description, VOICES, default_voice=default_voice, default_description="plain"
    )
    assert found == expected
