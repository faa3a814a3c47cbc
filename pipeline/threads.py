"""One thread of arithmetic for each process, since jobs run one process on each core."""

from __future__ import annotations

import os

from threadpoolctl import threadpool_limits

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""Variables that limit OpenMP and BLAS in processes that have not loaded them yet."""


def use_one_thread() -> None:
    """Limit this process and its children to one thread of OpenMP and BLAS.

    Nothing changes if the environment sets one of the variables in `ONE_THREAD`.
    """
    if any(name in os.environ for name in ONE_THREAD):
        return
    os.environ.update(ONE_THREAD)
    limit_loaded_blas()


def limit_loaded_blas() -> threadpool_limits:
    """Limit the BLAS libraries that are loaded already, which read the environment no more.

    Returns:
        A context manager; leaving it restores the earlier limits.
    """
    return threadpool_limits(1, user_api="blas")
