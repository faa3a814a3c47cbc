"""Settings resolve in the stated order, refuse what they do not know, and read back equal."""

from pathlib import Path

import pytest
from pydantic import Field

from pipeline.errors import SettingsError
from pipeline.settings import Settings, flatten, load_settings, save_settings


class Inner(Settings):
    learning_rate: float = Field(1e-3, gt=0)
    names: tuple[str, ...] = ()


class Outer(Settings):
    steps: int = Field(10, ge=1)
    inner: Inner = Inner()


def test_recipe_over_defaults_and_overrides_over_recipe(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("steps: 20\ninner: {learning_rate: 0.5}\n")
    settings = load_settings(Outer, recipe, ["steps=30", "inner.names=[a,b]", "steps=40"])
    assert settings.steps == 40
    assert settings.inner.learning_rate == 0.5
    assert settings.inner.names == ("a", "b")


def test_saved_settings_read_back_equal_with_equal_digest(tmp_path: Path) -> None:
    settings = load_settings(Outer, None, ["inner.names=[é]"])
    path = tmp_path / "s.yaml"
    path.write_text(save_settings(settings), encoding="utf-8")
    again = load_settings(Outer, path)
    assert again == settings
    assert again.digest() == settings.digest()
    assert settings.digest() != Outer().digest()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("inner.lerning_rate=1", "did you mean 'inner.learning_rate'"),
        ("steps=0", "'steps' is 0"),
        ("inner.learning_rate=fast", "'inner.learning_rate' is 'fast'"),
        ("steps", "not of the form key=value"),
    ],
)
def test_wrong_keys_and_values_are_named(override: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load_settings(Outer, None, [override])


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "\x00"])
def test_recipes_that_are_no_mapping_are_refused(tmp_path: Path, text: str) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(text)
    with pytest.raises(SettingsError, match=r"r\.yaml"):
        load_settings(Outer, recipe)


def test_a_missing_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.yaml"):
        load_settings(Outer, tmp_path / "none.yaml")


def test_flatten_gives_dotted_keys() -> None:
    assert flatten({"a": {"b": 1}, "c": 2}) == {"a.b": 1, "c": 2}
