"""Headless Chromium, driven over the pipe of its DevTools protocol."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from queue import Queue
from typing import Any

import pytest

_FLAGS = (
    "--headless",
    "--no-sandbox",  # it refuses to run as root otherwise, as containers do
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
    "--use-fake-device-for-media-stream",  # a microphone that beeps
    "--use-fake-ui-for-media-stream",
    "--remote-debugging-pipe",
)
_PATIENCE_S = 240.0
"""How long a busy machine may take for anything here; nothing waits longer than it must."""


class Page:
    """A page of its own browser context: nothing is stored in it before."""

    def __init__(self, browser: Browser, context: str, session: str) -> None:
        self._browser = browser
        self._context = context
        self._session = session
        self.call("Page.enable")
        self.call("Page.setLifecycleEventsEnabled", enabled=True)
        self.call("Runtime.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """The result of a method of the protocol."""
        return self._browser.call(method, self._session, **params)

    def open(
        self, url: str, *, width: int = 1280, height: int = 900, is_dark: bool = False
    ) -> None:
        """Load a page into a window of this size."""
        self.show(width=width, height=height, is_dark=is_dark)
        loader = self.call("Page.navigate", url=url)["loaderId"]
        self._browser.wait_for("Page.lifecycleEvent", loaderId=loader, name="load")

    def show(self, *, width: int, height: int, is_dark: bool = False) -> None:
        """Change size and theme of the window."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        theme = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[theme])

    def evaluate(self, expression: str) -> Any:
        """The value of an expression, or of the promise that it is."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, f"{expression}: {answer['exceptionDetails']}"
        return answer["result"].get("value")

    def wait_until(self, expression: str) -> Any:
        """The first true value of an expression."""
        deadline = time.monotonic() + _PATIENCE_S
        while not (value := self.evaluate(expression)):
            assert time.monotonic() < deadline, f"never true: {expression}\n{self.text('body')}"
            time.sleep(0.02)
        return value

    def text(self, selector: str) -> str:
        """What an element shows."""
        return str(self.evaluate(f"document.querySelector({selector!r}).textContent"))

    def click(self, selector: str) -> None:
        """Click an element, whether or not it is in view."""
        self.evaluate(f"document.querySelector({selector!r}).click()")

    def fill(self, selector: str, value: str) -> None:
        """Type into a field, which must take it."""
        self.evaluate(
            f"{{ const field = document.querySelector({selector!r}); field.value = {value!r};"
            " field.dispatchEvent(new Event('input', {bubbles: true})); }"
        )

    def press(self, key: str, code: int, *, text: str = "") -> None:
        """Press a key where the focus is."""
        named = {"key": key, "windowsVirtualKeyCode": code}
        self.call(
            "Input.dispatchKeyEvent", type="keyDown", **named, **({"text": text} if text else {})
        )
        self.call("Input.dispatchKeyEvent", type="keyUp", **named)

    def download(self, selector: str, folder: Path) -> None:
        """Click a link, and wait until its file is in the folder."""
        self._browser.call(
            "Browser.setDownloadBehavior",
            behavior="allow",
            browserContextId=self._context,
            downloadPath=str(folder),
            eventsEnabled=True,
        )
        self.click(selector)
        self._browser.wait_for("Browser.downloadProgress", state="completed")

    def screenshot(self, path: Path) -> None:
        """Write what the window shows as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))


class Browser:
    """A running Chromium; use `browser()`.

    Args:
        requests: What it reads.
        answers: What it writes.
    """

    def __init__(self, requests: int, answers: int) -> None:
        self._requests = requests
        self._num_calls = 0
        self._messages: Queue[dict[str, Any] | None] = Queue()
        self.events: list[dict[str, Any]] = []
        """What happened, in order: requests, messages of the console, exceptions."""
        self.reader = threading.Thread(target=self._read, args=(answers,), daemon=True)
        self.reader.start()

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """The result of a method of the protocol."""
        self._num_calls += 1
        message: dict[str, Any] = {"id": self._num_calls, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        os.write(self._requests, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._num_calls:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return dict(answer["result"])

    def wait_for(self, method: str, **params: Any) -> None:
        """Wait for an event with these parameters, which may have happened already."""

        def is_it(event: dict[str, Any]) -> bool:
            return event.get("method") == method and params.items() <= event["params"].items()

        if not any(map(is_it, self.events)):
            while not is_it(self._next()):
                pass

    def _next(self) -> dict[str, Any]:
        """The next message; an event is kept."""
        message = self._messages.get(timeout=_PATIENCE_S)
        assert message is not None, "the browser ended"
        if "method" in message:
            self.events.append(message)
        return message

    @contextlib.contextmanager
    def page(self) -> Iterator[Page]:
        """A page, closed with all that it stored."""
        self.events.clear()
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)
        attached = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        try:
            yield Page(self, context, attached["sessionId"])
        finally:
            self.call("Target.disposeBrowserContext", browserContextId=context)

    def _read(self, answers: int) -> None:
        rest = b""
        while received := os.read(answers, 2**16):
            *messages, rest = (rest + received).split(b"\0")
            for message in messages:
                self._messages.put(json.loads(message))
        self._messages.put(None)


@contextlib.contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """Chromium with a new profile in a folder; skips the test where it is not installed."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("Chromium is not installed; Debian has it in the package chromium")
    theirs_in, requests = os.pipe()
    answers, theirs_out = os.pipe()
    # The protocol has file descriptors 3 and 4.
    command = f'exec "$0" "$@" 3<&{theirs_in} 4>&{theirs_out}'
    process = subprocess.Popen(
        ["bash", "-c", command, program, *_FLAGS, f"--user-data-dir={folder}"],
        pass_fds=(theirs_in, theirs_out),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs_in)
    os.close(theirs_out)
    running = Browser(requests, answers)
    try:
        yield running
        running.call("Browser.close")
    finally:
        os.close(requests)  # which ends it where it was not closed
        process.wait(_PATIENCE_S)
        running.reader.join()
        os.close(answers)
