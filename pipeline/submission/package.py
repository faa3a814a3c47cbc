"""The code that travels with a submitted job: an allow list, never a whole directory.

Ray packs a working directory with everything in it, and one forgotten dataset makes a submission
fail or upload for hours. So the files of the three packages are staged in a folder of their own.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from pipeline.errors import SettingsError

ALLOWED = {
    "model": ("**/*.py", "**/py.typed", "**/pretrained/**/*"),
    "pipeline": (
        "**/*.py",
        "**/py.typed",
        "**/*.j2",
        "**/*.yaml",
        "acoustics/*.json",
        "serving/playground/*",
    ),
    "jobs": ("**/*.py", "**/py.typed", "configs/*.yaml"),
}
"""Patterns of the files that are packed, by package."""
FILES = "files"
"""Folder of the package that holds files named on the command line, such as recipes."""

_MAX_FILE_BYTES = 1 << 20


def code_root() -> Path:
    """Directory that holds the packages: a checkout, or `site-packages`."""
    return Path(__file__).parents[2]


def package_files(root: Path) -> Iterator[Path]:
    """Files that a job needs, relative to `root`, in the order of their names."""
    found = {
        path.relative_to(root)
        for package, patterns in ALLOWED.items()
        for pattern in patterns
        for path in (root / package).glob(pattern)
        if path.is_file() and "__pycache__" not in path.parts
    }
    yield from sorted(found)


def stage_package(root: Path, target: Path, extra: Mapping[str, Path]) -> int:
    """Copy the files of a job to an empty folder, for Ray to pack.

    Args:
        root: Directory of the packages.
        target: Folder to write.
        extra: Files beside the code, by their path inside the package.

    Returns:
        Bytes that were copied.
    """
    files = {str(path): root / path for path in package_files(root)} | dict(extra)
    for name, source in files.items():
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, path)
    return sum(source.stat().st_size for source in files.values())


def packed_name(path: Path) -> str:
    """Name of a file of the command line inside the package; files of equal contents share it.

    Raises:
        SettingsError: If the file cannot be read, or is too large for a recipe.
    """
    try:
        size = path.stat().st_size
        if size > _MAX_FILE_BYTES:
            raise SettingsError(
                f"{path} has {size} bytes and travels with the code, where at most "
                f"{_MAX_FILE_BYTES} are allowed; put it where every node can read it"
            )
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from error
    return f"{FILES}/{digest}-{path.name}"
