"""The command line names what is wrong, and every command is a module that explains itself."""

import importlib
import subprocess
import sys

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
