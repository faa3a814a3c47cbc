"""Build the pages of this project as a site: `python -m docs.site OUT`, or `make docs`.

Pages keep their places, so that a link works in the repository and on the site alike. The page of
settings is written from the docstrings of the settings classes. A broken link ends the build.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from jobs.settings import SCHEMAS, schema_of
from pipeline.settings_reference import reference_page

ROOT = Path(__file__).parents[1]
PAGES = (
    "*.md",
    "LICENSE",
    "docs/**/*",
    "cluster/*",
    "jobs/configs/*",
    "model/codec/pretrained/*/CARD.md",
    "model/codec/pretrained/*/*.png",
)
"""What the site holds: pages, pictures, sounds, and the files that pages link to."""
_NO_PAGES = (".py", ".yml", ".pyc")


def collect_pages(folder: Path) -> None:
    """Copy all pages to a folder and write the page of settings there."""
    for pattern in PAGES:
        for path in ROOT.glob(pattern):
            if path.is_file() and path.suffix not in _NO_PAGES:
                place = folder / path.relative_to(ROOT)
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, place)
    schemas = {command: schema_of(command) for command in SCHEMAS}
    (folder / "docs" / "settings.md").write_text(reference_page(schemas), "utf-8")


def build(output: Path) -> None:
    """Build the site.

    Raises:
        mkdocs.exceptions.Abort: If a link, an anchor or a page of the navigation is broken.
    """
    from mkdocs.commands.build import build as build_site
    from mkdocs.config import load_config

    with tempfile.TemporaryDirectory() as folder:
        collect_pages(Path(folder))
        config = load_config(
            str(ROOT / "docs" / "mkdocs.yml"),
            docs_dir=folder,
            site_dir=str(output.resolve()),
            strict=True,
        )
        build_site(config)


if __name__ == "__main__":
    build(Path(sys.argv[1]))
