"""`make gpu-check`: what only a GPU can tell, measured on one of them within ten minutes.

It runs the tests marked `gpu`, bf16 training steps of three presets and the sampler of one, and
writes a table as markdown and JSON. It needs torch, einops, jaxtyping and safetensors; pytest for
the tests; neither Ray nor DeepSpeed. Without a GPU it rehearses the same code at tiny size and
says what was not run.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from tests.bench.__main__ import hardware
from tests.gpu_check.rows import Plan, Row, Verdict
from tests.gpu_check.sampling import sampling_rows
from tests.gpu_check.training import training_rows

_PYTEST_INI = "[pytest]\nmarkers =\n    gpu\n    ray\n    slow\n"
"""The project's own options name plugins that a bare image does not have."""
_ROOT = Path(__file__).parents[2]
_TEST_TIMEOUT_S = 240


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, write `gpu-check.md` and `gpu-check.json`; 1 if a check failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu_check", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/gpu-check"), help="folder")
    parser.add_argument("--minutes", type=float, default=10.0, help="start no part after this")
    options = parser.parse_args(argv)
    plan = Plan.full() if torch.cuda.is_available() else Plan.rehearsal()
    options.out.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + 60 * options.minutes
    rows: list[Row] = []
    for name, part in _parts(plan):
        for row in _guarded(name, part, deadline):
            print(row, flush=True)
            rows.append(row)
            write(options.out, rows)
    return int(any(row.verdict == "FAILED" for row in rows))


def write(folder: Path, rows: Sequence[Row]) -> None:
    """Write both forms of the table; called after every row, so that a killed run leaves one."""
    about = f"{hardware()}; torch {torch.__version__}; {datetime.date.today().isoformat()}"
    table = "\n".join([Row.header(), *map(str, rows)])
    (folder / "gpu-check.md").write_text(f"{about}\n\n{table}\n", encoding="utf-8")
    values = {"about": about, "rows": [vars(row) for row in rows]}
    (folder / "gpu-check.json").write_text(json.dumps(values, indent=1), encoding="utf-8")


def _parts(plan: Plan) -> Iterator[tuple[str, Callable[[], Iterator[Row]]]]:
    yield "tests", lambda: iter([test_row(plan)])
    for name in plan.presets:
        yield f"training {name}", lambda name=name: training_rows(plan, name)  # type: ignore[misc]
    yield f"sampler {plan.sampler}", lambda: sampling_rows(plan)


def _guarded(name: str, part: Callable[[], Iterator[Row]], deadline: float) -> Iterator[Row]:
    """The rows of a part; what stops it becomes a row, so that the next part still runs."""
    if time.monotonic() > deadline:
        yield Row(name, "all", "", "", "not run: out of time")
        return
    try:
        yield from part()
    except Exception as error:  # noqa: BLE001 -- one broken part must not cost the others
        yield Row(name, "all", f"{type(error).__name__}: {str(error)[:300]}", "", "FAILED")
    finally:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def marked_files() -> list[str]:
    """Test files of the model with a test marked `gpu`; others may need what an image lacks."""
    found = sorted((_ROOT / "tests" / "model").rglob("test_*.py"))
    return [str(path) for path in found if "mark.gpu" in path.read_text(encoding="utf-8")]


def test_row(plan: Plan) -> Row:
    """The tests marked `gpu`, in a process of their own."""
    if plan.is_rehearsal:
        return Row("tests", "marked gpu", "", "all pass", "not run: no CUDA device")
    with tempfile.TemporaryDirectory() as folder:
        ini = Path(folder) / "pytest.ini"
        ini.write_text(_PYTEST_INI, encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "--noconftest"]
        command += ["-c", str(ini), "--rootdir", str(_ROOT), "--import-mode=importlib"]
        command += ["-p", "no:cacheprovider", *marked_files()]
        done = subprocess.run(
            command, cwd=_ROOT, capture_output=True, text=True, timeout=_TEST_TIMEOUT_S, check=False
        )
    lines = (done.stdout + done.stderr).strip().splitlines()
    verdict: Verdict = "ok" if done.returncode == 0 else "FAILED"
    if "No module named pytest" in done.stderr:
        verdict = "not run: pytest is not installed"
    return Row("tests", "marked gpu", lines[-1] if lines else "", "all pass", verdict)


if __name__ == "__main__":
    sys.exit(main())
