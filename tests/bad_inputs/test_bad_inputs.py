from __future__ import annotations

import pytest

from tests.bad_inputs.make import write_bad_inputs
from tests.bad_inputs.outcomes import expected, outcomes


@pytest.mark.slow
def test_every_malformed_input_is_kept_noted_or_rejected_as_it_must(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a file of code that is evaluated would show here
    write_bad_inputs(tmp_path / "made")
    assert outcomes(tmp_path / "made", tmp_path / "work") == expected()
    assert not (tmp_path / "EVAL_WAS_USED").exists()
