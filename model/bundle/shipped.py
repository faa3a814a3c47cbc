"""Bundles that come with the package, by name."""

from __future__ import annotations

from pathlib import Path

from model.bundle import DEFAULT_BUNDLE

MANIFEST = "bundle.json"
"""File of a bundle that names all others."""

_TINY_DIGEST = "85ecd727d87cc7d86b021d0776f1df243f4c718795ef06dbad96fa6d20a3896e"

SHIPPED: dict[str, tuple[Path, str]] = {
    DEFAULT_BUNDLE: (Path(__file__).parent / "pretrained" / "tiny", _TINY_DIGEST),
}
"""Bundles that come with the package, by name: folder, and the digest it must have. An empty digest
says that this version of the package comes without it."""


class BundleError(ValueError):
    """A bundle is incomplete, altered or of another version; names the file and the remedy."""


def bundle_folder(name: str | Path) -> Path:
    """Folder of a bundle: that of a shipped one, or the path as it is.

    Raises:
        BundleError: If the package was built without the shipped bundle of that name.
    """
    if str(name) not in SHIPPED:
        return Path(name)
    folder, expected = SHIPPED[str(name)]
    if not expected or not (folder / MANIFEST).is_file():
        raise BundleError(
            f"this package was built without the bundle {name}; name the folder of another one: "
            "`audiocalm export` makes it, `audiocalm demo --from-scratch` too"
        )
    return folder


def has_bundle(name: str) -> bool:
    """Whether the shipped bundle of a name comes with this package."""
    try:
        return name in SHIPPED and bundle_folder(name).is_dir()
    except BundleError:
        return False
