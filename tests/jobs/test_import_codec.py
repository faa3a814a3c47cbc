from __future__ import annotations

from pathlib import Path

import pytest
import torch

from jobs.import_codec import main
from model.codec.registry import build_codec, load_codec

CONFIG = {
    "name": "vibevoice",
    "sample_rate": 24_000,
    "network": {
        "hidden_size": 3,
        "kernel_size": 3,
        "num_filters": 2,
        "downsampling_ratios": [2, 4],
        "depths": [1, 1, 1],
    },
}


@pytest.mark.slow
def test_a_folder_of_transformers_becomes_a_codec_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("transformers")
    codec = build_codec(CONFIG)
    codec.network.save_pretrained(tmp_path / "published")
    features = tmp_path / "published" / "preprocessor_config.json"
    features.write_text('{"sampling_rate": 24000}')
    words = ["--source", str(tmp_path / "published"), "--output", str(tmp_path / "codec")]
    assert main(words) == 0
    assert "vibevoice" in capsys.readouterr().out
    latents = torch.randn(1, 4, 3)
    assert torch.equal(load_codec(tmp_path / "codec").decode(latents), codec.decode(latents))
    assert main([*words, "--sample-rate", "16000"]) == 1
    assert "24000 Hz and 16000 Hz was expected" in capsys.readouterr().err


def test_a_folder_of_nothing_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--source", str(tmp_path), "--output", str(tmp_path / "codec")]) == 1
    assert "config.json is missing" in capsys.readouterr().err
    assert not (tmp_path / "codec").exists()
