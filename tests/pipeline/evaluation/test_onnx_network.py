"""Networks in ONNX files: what goes in and comes out, and the figures made of it."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.evaluation.embedding_metric import EmbeddingMetric
from pipeline.evaluation.listening import Listening
from pipeline.evaluation.metric import unpacked
from pipeline.evaluation.onnx_network import (
    OnnxEmbedding,
    OnnxNetwork,
    OnnxSettings,
    OpinionMetric,
    OpinionSettings,
)
from tests.factories.evaluation import figures, findings_of, held_out_clip
from tests.factories.onnx_files import write_statistics

pytest.importorskip("onnxruntime")
STEREO = torch.tensor([[0.5, -0.25, 0.5, 0.25], [0.5, 0.25, 0.0, -0.25]])
"""Its mono mix is 0.5, 0, 0.25, 0."""


def _settings(path: Path, **fields) -> dict:
    return {"name": "S", "path": str(path), "sample_rate": 8000, "min_duration_s": 0, **fields}


@pytest.fixture
def path(tmp_path) -> Path:
    return write_statistics(tmp_path / "s.onnx")


def test_channels_are_averaged_and_a_short_waveform_is_repeated(path) -> None:
    network = OnnxNetwork(OnnxSettings(**_settings(path)))
    np.testing.assert_allclose(network(STEREO, 8000), [0.1875, 0.5])
    longer = OnnxNetwork(OnnxSettings(**_settings(path, min_duration_s=5 / 8000)))
    np.testing.assert_allclose(longer(STEREO, 8000), [0.25, 0.5], err_msg="0.5, 0, 0.25, 0, 0.5")
    assert longer.version != network.version


def test_the_waveform_has_the_rate_of_the_network(path) -> None:
    network = OnnxNetwork(OnnxSettings(**_settings(path, sample_rate=4000, min_duration_s=1)))
    tone = torch.sin(torch.arange(8000) * 2 * torch.pi * 3000 / 8000)[None]
    assert abs(network(tone, 8000)).max() < 0.3, "3 kHz is above half of 4 kHz"


def test_the_session_stays_behind_when_a_network_goes_to_a_worker(path) -> None:
    network = pickle.loads(pickle.dumps(OnnxNetwork(OnnxSettings(**_settings(path)))))
    np.testing.assert_allclose(network(STEREO, 8000), [0.1875, 0.5])


def test_an_opinion_is_a_figure_of_its_modalities(path) -> None:
    metric = OpinionMetric(OpinionSettings(**_settings(path)))
    quiet = torch.zeros(1, 8)
    clips = held_out_clip("a"), held_out_clip("b", modality="music")
    items = [Listening(clip, 8000, STEREO, quiet, quiet) for clip in clips]
    found = figures(findings_of(metric, items))["S"]
    assert found["real"] == pytest.approx((0.1875 + 0.5) / 2)
    assert found["generated"] == 0


def test_an_embedding_gives_vectors(path) -> None:
    metric = EmbeddingMetric(OnnxEmbedding(OnnxSettings(**_settings(path))))
    item = Listening(held_out_clip("a"), 8000, STEREO, STEREO, STEREO)
    seen = metric.observe(item, "real")
    np.testing.assert_allclose(unpacked(seen["vector"]), [0.1875, 0.5])
    assert seen["score"] is None


def test_what_is_no_network_of_one_waveform_is_refused_at_once(tmp_path) -> None:
    with pytest.raises(FileNotFoundError):
        OnnxNetwork(OnnxSettings(**_settings(tmp_path / "none.onnx")))
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(ValueError, match=r"text\.onnx is no network that onnxruntime reads"):
        OnnxNetwork(OnnxSettings(**_settings(tmp_path / "text.onnx")))
    two = write_statistics(tmp_path / "two.onnx", num_inputs=2)
    with pytest.raises(ValueError, match="has the inputs waveform, other; one waveform"):
        OnnxNetwork(OnnxSettings(**_settings(two)))
