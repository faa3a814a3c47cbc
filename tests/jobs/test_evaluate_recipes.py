"""Recipes of evaluation protocols are valid and name figures that the report has, or never had."""

from pathlib import Path

import pytest

from pipeline.evaluation.settings import EvaluateSettings
from pipeline.settings import load_settings

CONFIGS = Path(__file__).parents[2] / "jobs" / "configs"
RECIPES = sorted(CONFIGS.glob("evaluate_*.yaml"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_protocol_has_published_figures_with_their_source(recipe: Path) -> None:
    settings = load_settings(EvaluateSettings, recipe)
    assert settings.published
    for figure in settings.published:
        assert figure.value > 0
        assert "AudioCALM paper" in figure.source


def test_the_protocols_of_the_paper_are_there() -> None:
    assert [path.stem.removeprefix("evaluate_") for path in RECIPES] == [
        "audiocaps", "libritts", "song_describer",
    ]  # fmt: skip
