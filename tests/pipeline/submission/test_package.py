"""Code travels, data does not, however large it is and wherever it lies."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import SettingsError
from pipeline.submission.package import code_root, package_files, packed_name, stage_package

SPARSE_BYTES = 2 << 30


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Three packages of code among gigabytes of data (sparse, so that no disk holds them)."""
    code = (
        "jobs/cli.py", "jobs/configs/train.yaml", "model/audiocalm.py", "model/py.typed",
        "model/codec/pretrained/tiny/model.safetensors", "pipeline/page.html.j2",
        "pipeline/training/loop.py",
    )  # fmt: skip
    data = (
        "shards.tar", "runs/big/checkpoints/weights.safetensors", "model/weights.safetensors",
        "pipeline/data/clips.parquet", "jobs/configs/corpus.tar", "jobs/notes.wav",
        "model/__pycache__/cached.py",
    )  # fmt: skip
    for name in (*code, *data):
        path = tmp_path / "checkout" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    for name in data:
        with (tmp_path / "checkout" / name).open("r+b") as file:
            file.truncate(SPARSE_BYTES)
    return tmp_path / "checkout"


def test_only_the_allow_list_is_packed(checkout: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "my.yaml"
    recipe.write_text("seed: 1")
    target = tmp_path / "package"
    copied = stage_package(checkout, target, {"files/my.yaml": recipe})
    packed = {str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()}
    assert packed == {
        "files/my.yaml", "jobs/cli.py", "jobs/configs/train.yaml", "model/audiocalm.py",
        "model/codec/pretrained/tiny/model.safetensors", "model/py.typed",
        "pipeline/page.html.j2", "pipeline/training/loop.py",
    }  # fmt: skip
    assert copied == sum((target / name).stat().st_size for name in packed) < 1000


def test_every_file_of_the_code_is_on_the_allow_list() -> None:
    root = code_root()
    packed = {str(path) for path in package_files(root)}
    code = {
        str(path.relative_to(root))
        for package in ("model", "pipeline", "jobs")
        for path in (root / package).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert packed == code, "add a pattern to ALLOWED, or a submitted job lacks these files"
    assert {"jobs/cli.py", "model/bundle/pretrained/tiny/model.safetensors"} <= packed


def test_a_file_is_named_by_its_contents_and_a_large_one_is_refused(tmp_path: Path) -> None:
    recipe = tmp_path / "a.yaml"
    recipe.write_text("seed: 1")
    first = packed_name(recipe)
    assert first.startswith("files/")
    assert first.endswith("-a.yaml")
    recipe.write_text("seed: 2")
    assert packed_name(recipe) != first
    with recipe.open("r+b") as file:
        file.truncate(SPARSE_BYTES)
    with pytest.raises(SettingsError, match=r"2147483648 bytes .* at most 1048576"):
        packed_name(recipe)
    with pytest.raises(SettingsError, match="cannot read"):
        packed_name(tmp_path / "none.yaml")


def test_words_and_pages_that_the_pipeline_reads_are_packed() -> None:
    root = code_root() / "pipeline"
    read = {path for suffix in ("yaml", "json", "j2", "html") for path in root.rglob(f"*.{suffix}")}
    assert len(read) > 10
    assert {path.relative_to(code_root()) for path in read} <= set(package_files(code_root()))
