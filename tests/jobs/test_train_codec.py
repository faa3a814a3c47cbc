from __future__ import annotations

from pathlib import Path

import pytest

from jobs.train_codec import main
from pipeline.settings import load_settings
from pipeline.training.codec.settings import TrainCodecSettings

CONFIGS = Path(__file__).parents[2] / "jobs" / "configs"


@pytest.mark.parametrize("recipe", sorted(CONFIGS.glob("codec_*.yaml")), ids=lambda p: p.stem)
def test_every_codec_recipe_is_valid_and_named_by_its_preset(recipe: Path) -> None:
    settings = load_settings(TrainCodecSettings, recipe)
    assert recipe.stem.split("_")[1] == settings.preset
    assert settings.resources.use_gpu == recipe.stem.endswith("gpu")


def test_clips_and_output_are_required(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--output", "somewhere"])
    assert "--clips" in capsys.readouterr().err


def test_a_misspelt_setting_is_one_line_and_starts_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--clips", str(tmp_path), "--output", str(tmp_path / "run"), "--set", "optim.step=3"]
    assert main(words) == 1
    assert "optim.step" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
