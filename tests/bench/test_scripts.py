"""Scripts that only people start still import, and tell their options."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import tests.bench
import tests.chaos

MODULES = sorted(
    module.name
    for package in (tests.bench, tests.chaos)
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")
    if ".test_" not in module.name
)


def test_all_scripts_are_found():
    assert {"tests.bench.__main__", "tests.bench.stages", "tests.chaos.__main__"} <= {*MODULES}


@pytest.mark.parametrize("name", MODULES)
def test_a_script_imports_and_tells_its_options(name, monkeypatch, capsys):
    module = importlib.import_module(name)
    if not hasattr(module, "argparse"):
        return
    monkeypatch.setattr("sys.argv", [name, "--help"])
    with pytest.raises(SystemExit) as end:
        module.main()
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith("usage: ")
