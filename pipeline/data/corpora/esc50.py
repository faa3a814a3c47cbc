"""Environmental sounds in the ESC-50 layout: a table of files and their one category."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.data.corpora.fields import as_number
from pipeline.data.corpora.manifests import ManifestError
from pipeline.data.corpora.table import Table
from pipeline.data.rejects import Reason


class Esc50(Table):
    """`meta/esc50.csv` (or any table with filename and category) and the files it names."""

    layout = "esc50"
    modality = "sound"
    required = ("filename", "category")

    def is_header(self, columns: Sequence[str]) -> bool:
        """filename, and a category or the numbers that stand for it."""
        names = set(columns)
        return "filename" in names and ("category" in names or {"fold", "target"} <= names)

    def known(self, record: Mapping[str, str]) -> dict[str, Any]:
        """The licence of the published set: ESC-10 is CC BY, the rest of ESC-50 CC BY-NC."""
        for name in ("fold", "target"):
            if record.get(name) and as_number(record[name]) is None:
                raise ManifestError(
                    Reason.MALFORMED, f"{record[name]!r} is not a number", field=name
                )
        if not record["category"].strip():
            raise ManifestError(Reason.MISSING_VALUE, "the category is empty", field="category")
        if "esc10" not in record:
            return {}
        is_esc10 = record["esc10"].strip().lower() == "true"
        return {"licence": "CC-BY-3.0" if is_esc10 else "CC-BY-NC-3.0"}
