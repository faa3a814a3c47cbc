"""Windows, scores and summary of DNSMOS against the published script, worked out by hand."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.evaluation.listening import Listening
from pipeline.evaluation.quality_metric import (
    SAMPLE_RATE,
    QualityMetric,
    opinion_scores,
    windows,
)
from tests.factories.evaluation import figures, findings_of, held_out_clip

SIZE = 144_160  # 9.01 s at 16 kHz


@pytest.mark.parametrize(
    ("seconds", "count"), [(9.01, 1), (9.99, 1), (10.5, 1), (11.0, 2), (12.5, 3), (18.0, 7)]
)
def test_windows_come_every_second_while_whole_seconds_last(seconds: float, count: int) -> None:
    wave = np.arange(round(seconds * SAMPLE_RATE), dtype=np.float32)
    found = windows(wave)
    assert found.shape == (count, SIZE)
    assert [window[0] for window in found] == [SAMPLE_RATE * n for n in range(count)]


def test_a_short_waveform_is_doubled_until_it_is_long_enough() -> None:
    wave = np.arange(3 * SAMPLE_RATE, dtype=np.float32)
    found = windows(wave)  # 12 s
    assert found.shape == (3, SIZE)
    np.testing.assert_array_equal(found[0], np.tile(wave, 4)[:SIZE])


def test_outputs_are_mapped_by_the_published_polynomials() -> None:
    found = opinion_scores(np.array([[3.0, 4.0, 2.0]], np.float32))
    signal = -0.08397278 * 9 + 1.22083953 * 3 + 0.0052439
    background = -0.13166888 * 16 + 1.60915514 * 4 - 0.39604546
    overall = -0.06766283 * 4 + 1.11546468 * 2 + 0.04602535
    np.testing.assert_allclose(found, [[signal, background, overall]], rtol=1e-6)


def test_speech_is_scored_at_16_khz_over_all_windows(tmp_path: Path) -> None:
    path = tmp_path / "sig_bak_ovr.onnx"
    path.write_bytes(b"a network")
    seen = []

    def run(window: np.ndarray) -> np.ndarray:
        seen.append(window.shape)
        return np.array([[1.0 + (len(seen) - 1) % 3, 2.0, 3.0]], np.float32)

    metric = QualityMetric(path, run)
    speech = held_out_clip("a")
    music = held_out_clip("b", modality="music")
    wave = torch.zeros(2, 6 * 8000)  # doubled to 12 s
    items = [Listening(clip, 8000, wave, wave, wave) for clip in (speech, music)]
    found = figures(findings_of(metric, items))
    assert seen == [(1, SIZE)] * 9, "three windows of three forms"
    expected = opinion_scores(np.array([[n, 2.0, 3.0] for n in (1, 2, 3)], np.float32)).mean(0)
    for scale, value in zip(("signal", "background", "overall"), expected, strict=True):
        assert found[f"DNSMOS, {scale}"]["generated"] == pytest.approx(value)


def test_the_network_stays_behind_when_the_metric_goes_to_a_worker(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"one")
    metric = QualityMetric(path, lambda waves: waves)
    assert pickle.loads(pickle.dumps(metric)).version == metric.version
    path.write_bytes(b"two")
    assert QualityMetric(path).version != metric.version
    with pytest.raises(FileNotFoundError):
        QualityMetric(tmp_path / "none.onnx")
