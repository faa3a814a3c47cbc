"""Voices are compared with another recording of the speaker, by every encoder that is there."""

import pickle
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.evaluation import voice_encoders
from pipeline.evaluation.held_out import HeldOutClip
from pipeline.evaluation.listening import Listening
from pipeline.evaluation.references import choose_references
from pipeline.evaluation.voice_metric import VoiceMetric, voice_metrics
from tests.factories.evaluation import figures, findings_of, held_out_clip
from tests.factories.speakers import save_x_vector

RATE = 8000


def clip(
    name: str, speaker: str | None, duration_s: float = 3.0, split: str = "test"
) -> HeldOutClip:
    return held_out_clip(name, duration_s=duration_s, split=split, speaker=speaker)


class Direction:
    """Takes the first two samples for the voice."""

    name = "direction"
    version = "1"
    is_independent = True

    def embed(self, waveform: Tensor, sample_rate: int) -> NDArray[np.float32]:
        return waveform[0, :2].numpy()


def heard(item: HeldOutClip, generated: Tensor | None, reference: Tensor) -> Listening:
    anna = torch.tensor([[1.0, 0.0]])
    real = anna if item.speaker == "anna" else anna.flip(-1)
    return Listening(item, RATE, real, anna, generated, reference)


def test_similarity_is_the_cosine() -> None:
    one, other = np.array([1, 0], np.float32), np.array([1, 1], np.float32)
    assert voice_encoders.similarity(one, other) == pytest.approx(0.5**0.5)
    assert voice_encoders.similarity(one, np.zeros(2, np.float32)) == 0


def test_each_form_is_compared_with_the_reference_and_strangers_are_chance() -> None:
    anna, bert = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    items = [heard(clip("a", "anna"), bert, anna), heard(clip("b", "bert"), None, bert)]
    metric = VoiceMetric(Direction(), {"a", "b"}, were_requested=True)
    found = findings_of(metric, items)
    assert figures(found) == {
        "voice similarity, direction": {
            "real": 1.0, "reconstructed": 0.5, "generated": 0.0, "chance": 0.0,
        }
    }  # fmt: skip
    assert "independent" in found.measures[0].note
    assert "given to the model" in found.measures[0].note


def test_the_built_in_encoder_says_that_it_conditions() -> None:
    silence = torch.zeros(1, RATE)
    (metric,) = voice_metrics({"a"}, were_requested=False)
    found = findings_of(metric, [heard(clip("a", "anna"), silence, silence)])
    assert "the conditioning encoder" in found.measures[0].note
    assert "in words only" in found.measures[0].note


def test_without_references_there_is_a_reason() -> None:
    metric = VoiceMetric(Direction(), set(), were_requested=False)
    found = findings_of(metric, [heard(clip("a", None), None, torch.zeros(1, 2))])
    assert found.measures == []
    assert "no speech clip has another recording" in found.skipped["voice similarity"]


def test_a_published_encoder_is_read_from_a_folder_and_survives_pickling(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    save_x_vector(tmp_path, "WavLM")
    built_in, published = voice_metrics({"a"}, were_requested=False, encoder_folder=str(tmp_path))
    assert published.name.startswith("voice similarity, wavlm-")
    assert published.version != built_in.version
    wave = torch.randn(1, RATE, generator=torch.Generator().manual_seed(0))
    item = Listening(clip("a", "anna"), RATE, wave, wave, wave, wave)
    for metric in (published, pickle.loads(pickle.dumps(published))):
        assert metric.observe(item, "generated")["similarity"] == pytest.approx(1.0)
    with pytest.raises(ValueError, match="holds no speaker encoder"):
        voice_metrics({"a"}, were_requested=False, encoder_folder=str(tmp_path / "none"))


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
    monkeypatch.setattr(
        voice_encoders.importlib.util, "find_spec", lambda name: name == "resemblyzer"
    )
    built_in, independent = voice_encoders.encoders()
    assert (built_in.is_independent, independent.is_independent) == (False, True)
    length, level = independent.embed(0.5 * torch.ones(2, 8000), 8000)
    assert length == 16_000  # it listens at 16 kHz
    assert level == pytest.approx(0.03, rel=0.05)
    assert not independent.embed(torch.zeros(1, 8000), 8000).any()
