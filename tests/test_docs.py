"""What the documents promise is there, and the site of them has no broken link."""

import re
import tomllib
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from docs import site
from jobs import cli
from jobs.settings import SCHEMAS
from pipeline.data.corpora.registry import GENERIC, LAST_RESORT, SPECIFIC

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
COMMANDS = (ROOT / "docs" / "commands.md").read_text("utf-8")
CONTRIBUTING = (ROOT / "docs" / "contributing.md").read_text("utf-8")
DOCUMENTS = sorted(
    str(path.relative_to(ROOT))
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "cluster" / "README.md")
)


def test_every_command_is_described_and_every_one_named_exists() -> None:
    headings = "\n".join(re.findall(r"^### (.*)$", COMMANDS, re.MULTILINE))
    for command in cli.COMMANDS:
        assert f"`{command}`" in headings
    for command in re.findall(r"^audiocalm ([a-z-]+)", README + COMMANDS, re.MULTILINE):
        assert command in cli.COMMANDS


def test_commands_without_a_recipe_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    without = set()
    for command in cli.COMMANDS:
        with pytest.raises(SystemExit):
            cli.main([command, "--help"])
        if "[--config FILE]" not in capsys.readouterr().out:
            without.add(command)
    (said,) = re.findall(r"except (.*?), which have options\s+only", COMMANDS, re.DOTALL)
    assert set(re.findall(r"`([a-z-]+)`", said)) == without
    assert set(SCHEMAS) == set(cli.COMMANDS) - without


def lines_of(document: str) -> Iterator[tuple[int, str]]:
    """Lines outside of code, by number."""
    is_code = False
    for number, line in enumerate((ROOT / document).read_text("utf-8").splitlines(), 1):
        is_code ^= line.lstrip().startswith("```")
        if not is_code:
            yield number, line


@pytest.mark.parametrize("document", DOCUMENTS)
def test_prose_is_narrow_and_table_cells_are_short(document: str) -> None:
    for number, line in lines_of(document):
        where = f"{document}:{number}"
        if line.startswith("|"):
            assert max(map(len, re.split(r"(?<!\\)\|", line))) <= 112, where
        else:
            assert len(line) <= 120, where


def test_the_readme_fits_on_a_screen() -> None:
    assert len(README.splitlines()) <= 110


@pytest.mark.parametrize("document", DOCUMENTS)
def test_linked_and_named_files_exist(document: str) -> None:
    text = re.sub(r"<!--.*?-->", "", (ROOT / document).read_text("utf-8"), flags=re.DOTALL)
    names = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)
    linked = [ROOT / Path(document).parent / name for name in names]
    named = [ROOT / name for name in re.findall(r"(?:jobs/configs|cluster)/[\w./-]+\.yaml", text)]
    missing = [str(path) for path in linked + named if "*" not in path.name and not path.exists()]
    assert not missing


def test_the_file_map_names_files_of_its_folders() -> None:
    rows = re.findall(r"^\| `([\w/]+)/` \|[^|]*\| ([^|]*) \|$", CONTRIBUTING, re.MULTILINE)
    assert {"model", "pipeline/data", "pipeline/serving", "jobs"} <= {folder for folder, _ in rows}
    for folder, cell in rows:
        for name in re.findall(r"`([\w/.]+\.(?:py|md|yaml))`", cell):
            assert (ROOT / folder / name).exists(), f"{folder}/{name}"


def test_the_contribution_guide_names_what_is_there() -> None:
    for name in re.findall(r"`((?:model|pipeline|jobs|tests)/[\w/.]+\.py)`", CONTRIBUTING):
        assert (ROOT / name).exists(), name
    for folder, name in (
        ("model/attention.py", "is_allowed"),
        ("model/codec/registry.py", "_ARCHITECTURES"),
        ("pipeline/evaluation/music_metric.py", "MusicMetric"),
        ("pipeline/evaluation/evaluate.py", "build_metrics"),
        ("pipeline/data/corpora/registry.py", "SPECIFIC"),
        ("jobs/cli.py", "GROUPS"),
        ("jobs/settings.py", "SCHEMAS"),
    ):
        assert f"`{name}`" in CONTRIBUTING
        assert re.search(rf"\b{name}\b", (ROOT / folder).read_text("utf-8")), name
    (path, word) = re.findall(r"pytest (tests/\S+\.py) -k (\w+)", CONTRIBUTING)[0]
    assert re.search(rf"def test\w*{word}", (ROOT / path).read_text("utf-8"))


def test_every_layout_is_described() -> None:
    text = (ROOT / "docs" / "corpora.md").read_text("utf-8")
    for corpus in (*SPECIFIC, *GENERIC, LAST_RESORT):
        assert f"| `{corpus.layout}` |" in text


def test_the_makefile_has_every_target_the_documents_name() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for document in DOCUMENTS:
        text = (ROOT / document).read_text("utf-8")
        targets = re.findall(r"`make ([a-z-]+)`|^make ([a-z-]+)", text, re.MULTILINE)
        for name in {first or second for first, second in targets}:
            assert re.search(rf"^{name}:", makefile, re.MULTILINE), f"{document}: make {name}"


def test_citation_and_images_name_the_version_of_the_package() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    citation = yaml.safe_load((ROOT / "docs" / "CITATION.cff").read_text("utf-8"))
    assert str(citation["version"]) == version
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text("utf-8")
    tagged = [
        path for path in (ROOT / "cluster").glob("*.yaml") if "audiocalm:" in path.read_text()
    ]
    assert tagged
    assert all(f"audiocalm:{version}-ray" in path.read_text() for path in tagged)


def build(output: Path) -> None:
    """Build the site; deprecations of its generator are no fault of the pages."""
    pytest.importorskip("mkdocs", reason="the site generator is not installed: make setup")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        site.build(output)


def test_the_site_has_no_broken_link_and_all_settings(tmp_path: Path) -> None:
    build(tmp_path)
    settings = (tmp_path / "docs" / "settings" / "index.html").read_text("utf-8")
    for words in ("TrainSettings", "importance_power", "learning_rate", "Peak rate of modules"):
        assert words in settings


def test_a_broken_link_ends_the_build_of_the_site(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def collect_one(folder: Path) -> None:
        (folder / "README.md").write_text("[gone](gone.md)")

    monkeypatch.setattr(site, "collect_pages", collect_one)
    with pytest.raises(BaseException, match="strict mode"):
        build(tmp_path)
    assert "gone.md" in caplog.text
