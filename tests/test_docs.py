"""What the documents promise is there."""

import re
from pathlib import Path

import pytest

from jobs import cli
from pipeline.data.corpora.registry import GENERIC, LAST_RESORT, SPECIFIC

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def test_every_command_is_in_the_readme_and_every_one_named_exists() -> None:
    for command in cli.COMMANDS:
        assert f"`{command}`" in README
    for command in re.findall(r"^audiocalm ([a-z-]+)", README, re.MULTILINE):
        assert command in cli.COMMANDS


def test_the_readme_names_the_commands_without_a_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    without = set()
    for command in cli.COMMANDS:
        with pytest.raises(SystemExit):
            cli.main([command, "--help"])
        if "--config" not in capsys.readouterr().out:
            without.add(command)
    (said,) = re.findall(r"All but (.*?), which have options only", README, re.DOTALL)
    assert set(re.findall(r"`([a-z-]+)`", said)) == without


@pytest.mark.parametrize(
    "document", ["README.md", "docs/architecture.md", "docs/serving.md", "cluster/README.md"]
)
def test_linked_and_named_files_exist(document: str) -> None:
    text = (ROOT / document).read_text("utf-8")
    linked = [ROOT / Path(document).parent / name for name in re.findall(r"\]\(([^)#]+)\)", text)]
    named = [ROOT / name for name in re.findall(r"(?:jobs/configs|cluster)/[\w./-]+\.yaml", text)]
    missing = [str(path) for path in linked + named if "*" not in path.name and not path.exists()]
    assert not missing


def test_the_file_map_names_files_of_its_folder() -> None:
    rows = re.findall(r"^\| `(model|pipeline/\w+)/` \|[^|]*\| ([^|]*) \|$", README, re.MULTILINE)
    assert len(rows) == 6
    for folder, cell in rows:
        for name in re.findall(r"`([\w/]+\.py)`", cell):
            assert (ROOT / folder / name).exists(), f"{folder}/{name}"


def test_every_layout_is_described() -> None:
    text = (ROOT / "docs" / "corpora.md").read_text("utf-8")
    for corpus in (*SPECIFIC, *GENERIC, LAST_RESORT):
        assert f"| `{corpus.layout}` |" in text


def test_the_makefile_has_every_target_the_readme_names() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"`make ([a-z-]+)`|^make ([a-z-]+)", README, re.MULTILINE))
    for name in {first or second for first, second in targets}:
        assert re.search(rf"^{name}:", makefile, re.MULTILINE), name
