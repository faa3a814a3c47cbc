"""Arithmetic takes one core of a process."""

import os

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from pipeline.threads import ONE_THREAD, use_one_thread


@pytest.mark.parametrize(("chosen", "expected"), [(None, 1), ("2", 2)])
def test_arithmetic_takes_one_core_unless_the_environment_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, chosen: str | None, expected: int
) -> None:
    for name in ONE_THREAD:
        monkeypatch.delenv(name, raising=False)
    if chosen is not None:
        monkeypatch.setenv("OPENBLAS_NUM_THREADS", chosen)
    monkeypatch.setattr("os.environ", dict(os.environ))
    with threadpool_limits(2, user_api="blas"):  # of a NumPy that is loaded already
        use_one_thread()
        assert np.ones(1).sum() == 1
        pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
        assert pools
        assert {pool["num_threads"] for pool in pools} == {expected}
        assert os.environ["OPENBLAS_NUM_THREADS"] == str(expected)
