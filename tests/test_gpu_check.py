"""`make gpu-check` rehearsed on a CPU at tiny size."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.gpu_check.__main__ import main


@pytest.mark.skipif(torch.cuda.is_available(), reason="rehearses what a GPU would do")
def test_the_rehearsal_measures_everything_and_says_what_was_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--out", str(tmp_path)]) == 0
    table = (tmp_path / "gpu-check.md").read_text(encoding="utf-8")
    rows = json.loads((tmp_path / "gpu-check.json").read_text(encoding="utf-8"))["rows"]
    assert all(row["measure"] in table for row in rows)
    verdicts = {(row["part"], row["measure"]): row["verdict"] for row in rows}
    assert not [row for row in rows if row["verdict"] == "FAILED"]
    assert verdicts["training tiny", "loss in bf16 against float32"] == "ok"
    assert verdicts["sampler tiny", "latents with graphs against without"] == "ok"
    assert verdicts["tests", "marked gpu"].startswith("not run: no CUDA")
    assert verdicts["training tiny, layers compiled", "all"].startswith("not run")
    assert verdicts["training tiny, eager", "peak memory"].startswith("not run")
    assert verdicts["training tiny, layers recomputed", "step"] == "measured"
    assert len(capsys.readouterr().out.splitlines()) == len(rows)


def test_what_is_out_of_time_or_breaks_is_in_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["--out", str(tmp_path), "--minutes", "-1"]) == 0
    rows = json.loads((tmp_path / "gpu-check.json").read_text(encoding="utf-8"))["rows"]
    assert {row["verdict"] for row in rows} == {"not run: out of time"}

    def broken(*_: object) -> None:
        raise RuntimeError("no kernel image")

    monkeypatch.setattr("tests.gpu_check.__main__.training_rows", broken)
    monkeypatch.setattr("tests.gpu_check.__main__.sampling_rows", broken)
    assert main(["--out", str(tmp_path)]) == 1
    rows = json.loads((tmp_path / "gpu-check.json").read_text(encoding="utf-8"))["rows"]
    assert [row["verdict"] for row in rows if "no kernel image" in row["value"]] == ["FAILED"] * 2


def test_it_needs_neither_ray_nor_deepspeed() -> None:
    code = (
        "import sys, tests.gpu_check.__main__\n"
        "absent = {'ray', 'deepspeed', 'mlflow', 'pydantic', 'pyarrow', 'pytest'}\n"
        "print(absent & sys.modules.keys() or 'none')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "none"
