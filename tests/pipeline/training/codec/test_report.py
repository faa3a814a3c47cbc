from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from pipeline.training.codec.crops import CropSource, read_spans
from pipeline.training.codec.report import clip_importance, write_reconstructions
from tests.factories.codec import small_codec, write_clips


def test_a_clip_is_shown_once_beside_its_reconstruction(tmp_path: Path) -> None:
    spans = read_spans(write_clips(tmp_path / "corpus"), "train")
    source = CropSource(
        [spans[0], spans[2]],
        sample_rate=4000,
        num_channels=1,
        crop_samples=4000,
        weights={},
        memory_limit_bytes=0,
    )
    write_reconstructions(tmp_path, small_codec(), source, count=5, seed=0)
    shown = [soundfile.read(path)[0] for path in sorted(tmp_path.glob("*-original.wav"))]
    assert len(shown) == 2  # both are shorter than a crop, so there is one crop of each
    assert not np.array_equal(*shown)
    for kind in ("wav", "png"):
        assert len(list(tmp_path.glob(f"*-codec.{kind}"))) == 2


def test_the_importance_of_any_codec_can_be_measured_on_clips(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clips = write_clips(tmp_path / "corpus").uri
    codec = small_codec()
    importance = clip_importance(codec, clips)
    assert importance is not None
    assert len(importance) == codec.latent_dim
    assert np.mean(np.square(importance)) == pytest.approx(1, abs=1e-3)
    with torch.no_grad():
        for parameter in codec.decoder.parameters():
            parameter.zero_()
    assert clip_importance(codec, clips) is None
    assert "states no importance" in caplog.text
