"""A chat completions endpoint on a free port of this machine, answering by script."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Answer:
    """One HTTP response; `text` makes a chat completion of status 200."""

    text: str | None = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    finish_reason: str = "stop"
    hangs: bool = False

    def payload(self) -> bytes:
        if self.text is None:
            return self.body
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": self.text},
            "finish_reason": self.finish_reason,
        }
        return json.dumps({"choices": [choice], "usage": {"total_tokens": 100}}).encode()


@dataclass
class ChatServer:
    """A running endpoint: its address, and every request it got, in order."""

    base_url: str
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)


@contextmanager
def chat_server(respond: Callable[[dict[str, Any], int], Answer]) -> Iterator[ChatServer]:
    """Serve until the block ends.

    Args:
        respond: Gives the answer to a request's body; also told how many came before it.
    """
    lock, is_over = threading.Lock(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                number = len(server.bodies)
                server.bodies.append(body | {"_path": self.path})
                server.headers.append(dict(self.headers))
            answer = respond(body, number)
            if answer.hangs:
                is_over.wait(30)
                self.close_connection = True
                return
            payload = answer.payload()
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, *_args: Any) -> None:
            """Tests print nothing."""

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    server = ChatServer(f"http://127.0.0.1:{httpd.server_port}/v1")
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        is_over.set()
        httpd.shutdown()
        thread.join()
        httpd.server_close()


def draft_of(body: dict[str, Any]) -> str:
    """The draft in a question of the describe stage."""
    lines = body["messages"][-1]["content"].splitlines()
    return next(line.removeprefix("Draft: ") for line in lines if line.startswith("Draft: "))
