"""Words and phrases in YAML files, where people who know a language or a style mend them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml


@cache
def read_words(path: Path) -> Any:
    """The contents of a file of the package; lists, and texts of whole lines, are tuples."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml where it is
    return _frozen(yaml.load(path.read_bytes(), loader))


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _frozen(item) for key, item in value.items()}
    if isinstance(value, list):
        return tuple(map(_frozen, value))
    is_lines = isinstance(value, str) and value.endswith("\n")
    return tuple(value.splitlines()) if is_lines else value
