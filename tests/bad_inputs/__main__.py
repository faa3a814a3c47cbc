"""`python -m tests.bad_inputs DIR`: whether `ingest` judges every case of a directory as it must.

Without DIR the cases are made anew. DIR holds `expected.csv` with a column `path`; archives that
hold file names no checkout can must be unpacked beside it.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.bad_inputs.make import write_bad_inputs
from tests.bad_inputs.outcomes import expected, outcomes


def main() -> int:
    """Print each case that came out otherwise; 1 if there is one."""
    with tempfile.TemporaryDirectory(prefix="bad-inputs-") as work:
        if len(sys.argv) > 1:
            source = Path(sys.argv[1])
        else:
            source = Path(work) / "made"
            write_bad_inputs(source)
        found = outcomes(source, Path(work))
    wanted = expected()
    wrong = [case for case in found.keys() | wanted if found.get(case) != wanted.get(case)]
    for case in sorted(wrong):
        print(f"{case!r}: {found.get(case)!r}, expected {wanted.get(case)!r}")
    print(f"{len(found) - len(wrong)} of {len(found)} cases as expected")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
