"""Voices are compared with another recording of the speaker, by every encoder that is there."""

import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.evaluation import voices
from pipeline.evaluation.held_out import HeldOutClip
from pipeline.evaluation.listening import Listening
from pipeline.evaluation.references import choose_references
from pipeline.evaluation.speech_measures import measure_voices


def clip(
    name: str, speaker: str | None, duration_s: float = 3.0, split: str = "test"
) -> HeldOutClip:
    return HeldOutClip(
        clip_id=name, uri="", start_s=None, end_s=None, duration_s=duration_s, modality="speech",
        language="en", split=split, description="a voice", transcript="hello", speaker=speaker,
    )  # fmt: skip


class Direction:
    """Takes the first two samples for the voice."""

    name = "direction"
    is_independent = True

    def embed(self, waveform: Tensor, sample_rate: int) -> NDArray[np.float32]:
        return waveform[0, :2].numpy()


def heard(item: HeldOutClip, generated: Tensor | None) -> Listening:
    anna = torch.tensor([[1.0, 0.0]])
    return Listening(item, anna if item.speaker == "anna" else anna.flip(-1), anna, generated, 1.0)


def test_similarity_is_the_cosine() -> None:
    one, other = np.array([1, 0], np.float32), np.array([1, 1], np.float32)
    assert voices.similarity(one, other) == pytest.approx(0.5**0.5)
    assert voices.similarity(one, np.zeros(2, np.float32)) == 0


def test_each_form_is_compared_with_the_reference_and_strangers_are_chance() -> None:
    anna, bert = clip("a", "anna"), clip("b", "bert")
    references = {"a": torch.tensor([[1.0, 0.0]]), "b": torch.tensor([[0.0, 1.0]])}
    listenings = [heard(anna, torch.tensor([[0.0, 1.0]])), heard(bert, None)]
    found = measure_voices(
        listenings, references, 8000, were_requested=True, encoders=[Direction()]
    )
    (measure,) = found.measures
    assert measure["name"] == "voice similarity, direction"
    values = {f: measure[f]["value"] for f in ("real", "reconstructed", "generated", "chance")}
    assert values == {"real": 1.0, "reconstructed": 0.5, "generated": 0.0, "chance": 0.0}
    assert "independent" in str(measure["note"])
    assert "given to the model" in str(measure["note"])


def test_the_built_in_encoder_says_that_it_conditions() -> None:
    references = {"a": torch.zeros(1, 8000)}
    item = Listening(clip("a", "anna"), *[torch.zeros(1, 8000)] * 3, generate_s=1.0)
    found = measure_voices([item], references, 8000, were_requested=False,
                           encoders=[voices.ConditioningEncoder()])  # fmt: skip
    assert "the conditioning encoder" in str(found.measures[0]["note"])
    assert "in words only" in str(found.measures[0]["note"])


def test_without_references_there_is_a_reason() -> None:
    found = measure_voices([heard(clip("a", None), None)], {}, 8000, were_requested=False)
    assert found.measures == []
    assert "no speech clip has another recording" in found.skipped["voice similarity"]


def test_a_reference_is_another_clip_of_the_speaker_and_rather_a_long_one() -> None:
    pool = [clip("a", "anna", 1.0), clip("a2", "anna", 1.0), clip("a3", "anna", 2.0, "train"),
            clip("b", "bert"), clip("n", None), clip("n2", None)]  # fmt: skip
    for seed in range(5):
        found = choose_references([pool[0], pool[3], pool[4]], pool, seed)
        assert {name: other.clip_id for name, other in found.items()} == {"a": "a3"}


def test_resemblyzer_is_used_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    package = ModuleType("resemblyzer")

    class VoiceEncoder:
        def __init__(self, device: str, verbose: bool) -> None:
            assert device == "cpu"

        def embed_utterance(self, mono: NDArray[np.float32]) -> NDArray[np.float32]:
            return np.array([len(mono), float(np.sqrt(np.mean(mono**2)))], np.float32)

    package.VoiceEncoder = VoiceEncoder  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "resemblyzer", package)
    monkeypatch.setattr(voices.importlib.util, "find_spec", lambda name: name == "resemblyzer")
    built_in, independent = voices.encoders()
    assert (built_in.is_independent, independent.is_independent) == (False, True)
    length, level = independent.embed(0.5 * torch.ones(2, 8000), 8000)
    assert length == 16_000  # it listens at 16 kHz
    assert level == pytest.approx(0.03, rel=0.05)
    assert not independent.embed(torch.zeros(1, 8000), 8000).any()
