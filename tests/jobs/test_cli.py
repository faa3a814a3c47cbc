"""The command line names what is wrong, and every command is a module that explains itself."""

import importlib
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

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
    if command not in ("doctor", "settings", "completion"):
        assert "--" in printed.replace("--help", "").replace("--verbose", "")


def test_the_list_of_commands_is_shown_and_a_typo_gets_the_nearest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["--help"]) == 0
    assert "train-codec" in capsys.readouterr().out
    assert cli.main([]) == options.EXIT_USAGE
    assert cli.main(["trian"]) == options.EXIT_USAGE
    assert "did you mean 'train'" in capsys.readouterr().err


def test_help_groups_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["--help"])
    lines = capsys.readouterr().out.splitlines()
    groups = [line.removesuffix(":") for line in lines if line.endswith(":")]
    assert groups == ["data", "model", "use", "cluster", "check"]
    assert lines.index("use:") < lines.index(next(x for x in lines if x.startswith("  generate")))


def test_settings_are_printed_with_meaning_and_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["settings", "train", "optim.learning"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("optim.learning_rate  float; 0.0003\n    Peak rate of modules")
    assert cli.main(["settings", "train", "optim.lerning"]) == options.EXIT_FAILED
    assert "audiocalm settings train" in capsys.readouterr().err


def test_completion_knows_every_command_option_and_choice(
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("shtab", reason="the extra `completion` is not installed")
    assert cli.main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    for word in (*cli.COMMANDS, "--dry-run", "--from-scratch", "bf16"):
        assert word in script


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
