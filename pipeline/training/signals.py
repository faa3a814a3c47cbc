"""Signals that end a run: the first requests a checkpoint, and the run ends when it is written.

Ray replaces SIGTERM's handler in `ray.init`, and Ray Train installs one for SIGINT that aborts the
run, but only if it is called from the main thread. So the work runs in another thread, and the main
one keeps the handlers and waits.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
import types
from collections.abc import Callable
from concurrent.futures import Future

logger = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_POLL_S = 0.2
_SAME_PRESS_S = 1.0
"""Two signals within this time, seconds, count as one: sent to the process and to its group."""


def wait_for(work: Callable[[], object], request_stop: Callable[[str], None]) -> None:
    """Run work in a thread and wait for it; signals in the meantime request a stop.

    Outside the main thread, which alone receives signals, this is a plain call.

    Args:
        work: Function that returns soon after a stop was requested.
        request_stop: Called once, with the name of the first signal.

    Raises:
        KeyboardInterrupt: On a second SIGINT; the work is abandoned.
    """
    if threading.current_thread() is not threading.main_thread():
        work()
        return
    inbox = _Inbox()
    done: Future[None] = Future()

    def run() -> None:
        """Do the work and keep its outcome for the thread that waits."""
        try:
            work()
        except BaseException as error:  # noqa: BLE001  # raised again by the thread that waits
            done.set_exception(error)
        else:
            done.set_result(None)

    previous = {number: signal.signal(number, inbox.receive) for number in _SIGNALS}
    try:
        thread = threading.Thread(target=run, name="work", daemon=True)
        thread.start()
        is_asked = False
        while thread.is_alive():
            thread.join(_POLL_S)
            if inbox.first and not is_asked:
                is_asked = True
                logger.warning(
                    "%s: saving a checkpoint, then ending; Ctrl-C again ends at once", inbox.first
                )
                request_stop(inbox.first)
            if inbox.is_impatient:
                raise KeyboardInterrupt
        done.result()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class _Inbox:
    """Queue of received signals; the handlers only append to it."""

    def __init__(self) -> None:
        self.first = ""
        self.is_impatient = False
        self._last_s = -_SAME_PRESS_S

    def receive(self, number: int, frame: types.FrameType | None) -> None:
        """Handle a signal: remember the first one, and whether Ctrl-C was pressed again."""
        now = time.monotonic()
        if number == signal.SIGINT and self.first and now - self._last_s >= _SAME_PRESS_S:
            self.is_impatient = True
        self.first = self.first or signal.Signals(number).name
        self._last_s = now
