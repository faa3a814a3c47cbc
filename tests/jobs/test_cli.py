"""The command line names what is wrong, and every command is a module that explains itself."""

import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import threadpoolctl

from jobs import cli, options
from pipeline.errors import PipelineError
from pipeline.settings import Settings


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = importlib.import_module(f"jobs.{command.replace('-', '_')}")
    with pytest.raises(SystemExit) as stop:
        module.main(["--help"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert f"audiocalm {command}" in printed
    if command != "doctor":
        assert "--" in printed.replace("--help", "").replace("--verbose", "")


def test_the_list_of_commands_is_shown_and_a_typo_gets_the_nearest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["--help"]) == 0
    assert "train-codec" in capsys.readouterr().out
    assert cli.main([]) == options.EXIT_USAGE
    assert cli.main(["trian"]) == options.EXIT_USAGE
    assert "did you mean 'train'" in capsys.readouterr().err


def test_the_cli_imports_no_heavy_library_before_a_command_is_chosen() -> None:
    code = (
        "import sys, jobs.cli; print([m for m in ('ray', 'torch', 'mlflow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


class Small(Settings):
    steps: int = 1
    names: tuple[str, ...] = ()


def test_flags_win_over_set_and_keep_awkward_text() -> None:
    parsed = options.parser("x", "x").parse_args(["--set", "steps=2"])
    settings = options.settings_from(Small, parsed, steps=3, names=["it's: a, b", "null"])
    assert settings.steps == 3
    assert settings.names == ("it's: a, b", "null")
    assert options.settings_from(Small, parsed, steps=None).steps == 2


def test_known_errors_are_one_line_and_an_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise PipelineError("the value, the limit, the remedy")

    parsed = options.parser("x", "x").parse_args([])
    assert options.run(fail, parsed) == options.EXIT_FAILED
    assert capsys.readouterr().err == "error: the value, the limit, the remedy\n"


@pytest.mark.parametrize(("chosen", "expected"), [(None, 1), ("2", 2)])
def test_arithmetic_takes_one_core_unless_the_environment_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, chosen: str | None, expected: int
) -> None:
    for name in options._THREADS:
        monkeypatch.delenv(name, raising=False)
    if chosen is not None:
        monkeypatch.setenv("OPENBLAS_NUM_THREADS", chosen)
    monkeypatch.setattr("os.environ", dict(os.environ))
    with threadpoolctl.threadpool_limits(2, user_api="blas"):  # of a NumPy that is loaded already
        options.one_thread()
        assert np.ones(1).sum() == 1
        pools = [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
        assert pools
        assert {pool["num_threads"] for pool in pools} == {expected}
        assert os.environ["OPENBLAS_NUM_THREADS"] == str(expected)


def test_a_demo_whose_training_was_stopped_ends_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from jobs import demo

    (tmp_path / "summary.json").write_text('{"state": "stopped"}')
    monkeypatch.setattr("jobs.train.main", lambda words: 0)
    step = SimpleNamespace(words=["train", "--shards", "x", "--output", str(tmp_path)])
    with pytest.raises(KeyboardInterrupt):
        demo._run(step)
    (tmp_path / "summary.json").write_text('{"state": "finished"}')
    demo._run(step)
