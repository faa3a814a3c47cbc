from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from pipeline.training.codec_data import CropSource, read_spans
from pipeline.training.codec_report import write_reconstructions
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
