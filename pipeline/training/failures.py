"""Failures that end a run on all workers at once, and that no restart of the group would solve."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from pipeline.errors import DamagedError, DiskFullError, NonFiniteError, PipelineError

logger = logging.getLogger(__name__)

FINAL_ERRORS: dict[str, type[PipelineError]] = {
    kind.__name__: kind for kind in (NonFiniteError, DiskFullError, DamagedError)
}
"""Errors that all workers raise together. A worker records them in the summary of its run and
returns, and the driver raises them."""
_NAMED_CLIPS = 12
"""Clips of a broken batch that the error names; the log names all of them."""


def failure_summary(error: BaseException) -> dict[str, str]:
    """Entry of one of `FINAL_ERRORS` in the summary of a run."""
    return {"state": "failed", "kind": type(error).__name__, "error": str(error)}


def raise_failure(summary: dict[str, str]) -> None:
    """Raise the error of a summary that states one.

    Raises:
        PipelineError: One of `FINAL_ERRORS`.
    """
    if summary["state"] == "failed":
        raise FINAL_ERRORS[summary["kind"]](summary["error"])


def not_finite(said: str, clips: Sequence[str], skip: str, *, is_logged: bool) -> NonFiniteError:
    """The error of a step whose loss or gradient is not finite.

    Args:
        said: What is not finite, and in which step.
        clips: Clips of the step on all workers.
        skip: Assignment of the setting that skips the step.
        is_logged: Whether to log all clips, of which the error names the first ones only.
    """
    if is_logged:
        logger.error("%s; its clips: %s", said, ", ".join(clips))
    more = len(clips) - _NAMED_CLIPS
    return NonFiniteError(
        f"{said}; the weights are those before it. Its clips: {', '.join(clips[:_NAMED_CLIPS])}"
        f"{f' and {more} more, see the log' * (more > 0)}. Run the same command again with a lower "
        f"optim.learning_rate or optim.clip_norm, or skip this step with --set {skip}"
    )
