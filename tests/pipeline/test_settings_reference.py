"""Settings are printed with their own meaning, range and default."""

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from pipeline.settings import Settings
from pipeline.settings_reference import Setting, reference_page, settings_of


@dataclass(frozen=True)
class Schedule:
    """Schedule of a rate."""

    num_steps: int = 10
    """Steps of the run."""
    decay: Literal["linear", "cosine"] = "linear"
    """Shape of
    the decay."""


class Corpus(Settings):
    """One corpus."""

    path: str
    """Directory of the corpus."""


class Recipe(Settings):
    """A recipe."""

    rate: float | None = Field(default=None, gt=0, le=1)
    """Learning rate."""
    names: tuple[str, ...] = ("a",)
    """Names."""
    shares: dict[str, float] = Field(default_factory=dict)
    """Shares."""
    schedule: Schedule = Schedule(num_steps=20)
    """When it falls."""
    corpora: tuple[Corpus, ...] = ()
    """What is read."""


def found() -> dict[str, Setting]:
    return {item.key: item for item in settings_of(Recipe)}


def test_every_setting_has_its_dotted_key_also_in_dataclasses_and_lists() -> None:
    assert list(found()) == [
        "rate", "names", "shares", "schedule", "schedule.num_steps", "schedule.decay", "corpora[]",
        "corpora[].path",
    ]  # fmt: skip


def test_types_are_shown_with_their_limits_and_choices() -> None:
    kinds = {key: item.kind for key, item in found().items()}
    assert kinds["rate"] == "float | null, > 0, <= 1"
    assert kinds["names"] == "list of str"
    assert kinds["shares"] == "map of str to float"
    assert kinds["schedule.decay"] == "linear | cosine"


def test_defaults_are_those_of_the_tree_that_the_class_is_part_of() -> None:
    defaults = {key: item.default for key, item in found().items()}
    assert defaults["rate"] == "null"
    assert defaults["names"] == "['a']"
    assert defaults["schedule.num_steps"] == "20"
    assert defaults["corpora[].path"] == "required"


def test_the_meaning_is_the_docstring_on_one_line() -> None:
    assert found()["schedule.decay"].meaning == "Shape of the decay."
    assert found()["corpora[].path"].meaning == "Directory of the corpus."


def test_the_page_has_one_section_a_class_that_names_its_commands() -> None:
    page = reference_page({"train": Recipe, "again": Recipe})
    assert page.count("## Schedule") == 1
    assert "Used by `audiocalm train`, `audiocalm again`." in page
    assert "- **`schedule`** (see [Schedule](#schedule)). When it falls." in page
    assert "- **`path`** (str). Directory of the corpus." in page


def test_every_setting_of_every_command_has_a_meaning() -> None:
    from jobs.settings import SCHEMAS, schema_of

    silent: list[Any] = [
        (command, item.key)
        for command in SCHEMAS
        for item in settings_of(schema_of(command))
        if not item.meaning
    ]
    assert not silent
