"""Voices as a safetensors file."""

from __future__ import annotations

import torch
from safetensors.torch import load

from model.bundle.voices import Voice, voices_from_bytes, voices_to_bytes

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
