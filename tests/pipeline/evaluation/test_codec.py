from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import soundfile
import torch

from jobs.evaluate import main
from model.codec.registry import save_codec
from pipeline.errors import IncompleteError
from pipeline.evaluation.codec import (
    EvaluateCodecSettings,
    choose_clips,
    evaluate_codec,
    reconstruction_measures,
)
from pipeline.storage import Folder, table_bytes
from tests.factories.cards import finish
from tests.factories.codec import small_codec

RATE = 4000


def clip(folder: Path, name: str, **changes: Any) -> dict[str, Any]:
    samples = changes.pop("samples", None)
    if samples is None:
        samples = 0.1 * np.random.default_rng(len(name)).standard_normal(RATE)
    soundfile.write(folder / f"{name}.wav", samples, RATE)
    row = {
        "clip_id": name, "uri": str(folder / f"{name}.wav"), "start_s": None, "end_s": None,
        "modality": "sound", "language": None, "split": "test", "transcript": None,
        "duration_s": len(samples) / RATE,
    }  # fmt: skip
    return {**row, **changes}


@pytest.fixture
def clips(tmp_path: Path) -> Folder:
    speech = {"modality": "speech", "language": "en"}
    rows = [
        clip(tmp_path, "rain"),
        clip(tmp_path, "heard-in-training", split="train"),
        clip(tmp_path, "nothing", samples=np.zeros(RATE)),
        clip(tmp_path, "song", modality="music", samples=0.1 * np.sin(np.arange(3 * RATE))),
        clip(tmp_path, "sentence", transcript="how are you", **speech),
        clip(tmp_path, "digit", transcript="Seven.", **speech),
        clip(tmp_path, "sieben", transcript="seven", modality="speech", language="de"),
    ]
    folder = Folder.at(tmp_path / "data" / "clips")
    folder.write_bytes("parts/part-00000000.parquet", table_bytes(pa.Table.from_pylist(rows)))
    finish(folder, {"stage": "ingest"})
    return folder


def test_held_out_clips_are_chosen_and_digits_apart(clips: Folder) -> None:
    settings = EvaluateCodecSettings(max_duration_s=2.0)
    chosen = choose_clips(clips, settings)
    assert [c.clip_id for c in chosen][-1] == "digit"
    assert {c.clip_id for c in chosen} == {
        "rain", "nothing", "song", "sentence", "sieben", "digit",
    }  # fmt: skip
    (song,) = (c for c in chosen if c.clip_id == "song")
    assert (song.duration_s, song.end_s) == (2.0, 2.0)
    with pytest.raises(IncompleteError, match="no clip of splits validation"):
        choose_clips(clips, EvaluateCodecSettings(splits=("validation",)))


def test_results_add_up_and_are_plain(clips: Folder) -> None:
    results = evaluate_codec(small_codec(), clips, EvaluateCodecSettings(num_digits=0))
    assert results["silent_clips"] == 1
    counts = {name: row["clips"] for name, row in results["reconstruction"].items()}
    assert counts == {"speech": 2, "sound": 1, "music": 1}
    assert results["digits"] == {"clips": 0}
    latents = results["latents"]
    assert latents["dimensions"] == 4
    # three clips of a second and one of three, at 80 samples a frame
    assert latents["frames"] == 6 * RATE // 80
    json.dumps(results)


def test_a_dimension_that_says_nothing_is_counted_as_dead(clips: Folder) -> None:
    codec = small_codec()
    with torch.no_grad():
        codec.encoder.posterior.weight[[1, 5]] = 0.0  # mean and log deviation of dimension 1
        codec.encoder.posterior.bias[[1, 5]] = 0.0
        codec.encoder.posterior.bias[[0, 2, 3]] = 2.0
    latents = evaluate_codec(codec, clips, EvaluateCodecSettings(num_digits=0))["latents"]
    assert latents["dead_dimensions"] == 1
    assert latents["least_kl_nats"] == pytest.approx(0.0, abs=1e-6)
    assert latents["std_smallest"] < 1e-5


def test_a_perfect_copy_loses_nothing_and_mono_has_no_side() -> None:
    stereo = torch.randn(2, 4000)
    found = reconstruction_measures(stereo, stereo.clone(), RATE)
    assert found["log_mel_l1"] == 0
    assert found["bandwidth_kept"] == 1
    assert found["width_lost_db"] == 0
    assert found["si_sdr_side_db"] > 60
    narrow = torch.stack([stereo.mean(0)] * 2)
    assert reconstruction_measures(narrow, stereo, RATE)["width_lost_db"] > 60
    assert "si_sdr_side_db" not in reconstruction_measures(stereo, narrow, RATE)


def test_the_command_measures_a_codec_alone(
    clips: Folder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_codec(small_codec(), tmp_path / "codec")
    with pytest.raises(SystemExit):
        main(["--codec", "c", "--data", "d", "--output", "o", "--asr", "w"])
    words = ["--codec", str(tmp_path / "codec"), "--data", str(tmp_path / "data")]
    words += ["--output", str(tmp_path / "out"), "--set", "num_digits=0"]
    assert main(words) == 0
    assert "results.json" in capsys.readouterr().out
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert len(results["codec_digest"]) == 64
    with pytest.raises(SystemExit):
        main([*words, "--bundle", "x"])
