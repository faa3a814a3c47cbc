"""The server of pocket-tts beside ours: the same text, the same number of clients, on loopback.

pocket-tts is no dependency of the project. It is measured where a folder with it is given:

    pip install --target DIR --no-deps pocket-tts==4.0.1 sentencepiece

Its architecture sets its speed, so random weights stand in for the published ones, which are not at
hand; it then speaks noise, of the length that it estimates for the text.

`python -m tests.bench.pocket_tts --packages DIR --port PORT` runs the server alone.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.factories.http import free_port

TEXT = "The ferry leaves at seven, and the weather is fine today."
_CONFIG = "english_18m_2026-10"
_RATE = 24_000
_START_S = 300.0
_FIRST_BYTES = 256
"""More than the header of a WAV file: audio has begun."""


@dataclass(frozen=True)
class Heard:
    """One request for speech, times in seconds."""

    first_s: float
    total_s: float
    audio_s: float


async def speech_load(
    url: str, clients: int, seconds: float, *, rate: int, **body: Any
) -> tuple[list[Heard], float]:
    """Complete requests of clients that each send the next one after the last, and seconds passed.

    Args:
        url: Route that answers with 16-bit mono audio.
        clients: Number of clients.
        seconds: Time after which none sends another request.
        rate: Sample rate of the audio.
        body: Arguments of `httpx` for the body.
    """
    heard: list[Heard] = []
    began = time.perf_counter()

    async def client(session: httpx.AsyncClient) -> None:
        while time.perf_counter() - began < seconds:
            asked, first, size = time.perf_counter(), None, 0
            async with session.stream("POST", url, **body) as answer:
                if answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
                    await asyncio.sleep(float(answer.headers["retry-after"]))
                    continue
                answer.raise_for_status()
                async for chunk in answer.aiter_raw():
                    size += len(chunk)
                    if first is None and size > _FIRST_BYTES:
                        first = time.perf_counter() - asked
            assert first is not None, f"{url} answered without audio"
            heard.append(Heard(first, time.perf_counter() - asked, size / 2 / rate))

    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(timeout=None, limits=limits) as session:
        (await session.post(url, **body)).raise_for_status()  # which warms it up
        began = time.perf_counter()
        await asyncio.gather(*(client(session) for _ in range(clients)))
    return heard, time.perf_counter() - began


def row(name: str, clients: int, heard: list[Heard], elapsed_s: float) -> str:
    """A row of the table of speech."""
    first = sorted(one.first_s for one in heard)
    p95 = first[min(len(first) - 1, round(0.95 * len(first)))]
    cells = (
        name,
        str(clients),
        str(len(heard)),
        f"{sum(one.audio_s for one in heard) / elapsed_s:.2f}",
        f"{statistics.median(one.total_s / one.audio_s for one in heard):.2f}",
        f"{statistics.median(first):.2f}",
        f"{p95:.2f}",
    )
    return f"| {' | '.join(cells)} |"


HEADER = [
    "| speech | clients | requests | audio s/s | RTF p50 | first audio p50, s | p95 |",
    "|---|---|---|---|---|---|---|",
]


def what_is_missing(packages: str | None) -> str | None:
    """What is missing to measure pocket-tts; None if nothing."""
    if packages is None:
        return "give --pocket-tts DIR, made as tests/bench/pocket_tts.py says"
    missing = [
        name for name in ("pocket_tts", "sentencepiece") if not (Path(packages) / name).is_dir()
    ]
    return f"{packages} has no {' and no '.join(missing)}" if missing else None


@contextlib.contextmanager
def pocket_server(packages: str) -> Iterator[str]:
    """Its server for the duration of a block, as the URL of its route."""
    port = free_port()
    command = [sys.executable, "-m", "tests.bench.pocket_tts", "--packages", packages]
    process = subprocess.Popen([*command, "--port", str(port)])
    try:
        deadline = time.monotonic() + _START_S
        while True:
            assert process.poll() is None, f"pocket-tts ended with {process.returncode}"
            assert time.monotonic() < deadline, f"pocket-tts did not start in {_START_S:.0f} s"
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200:
                    break
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/tts"
    finally:
        process.terminate()
        process.wait()


def pocket_rows(packages: str, clients: tuple[int, ...], seconds: float) -> list[str]:
    """Rows of the table for its server."""
    rows = []
    with pocket_server(packages) as url:
        for number in clients:
            load = speech_load(url, number, seconds, rate=_RATE, data={"text": TEXT})
            rows.append(row(f"pocket-tts, {_CONFIG}, random weights", number, *asyncio.run(load)))
    return rows


def our_rows(url: str, rate: int, clients: tuple[int, ...], seconds: float) -> list[str]:
    """Rows of the table for our endpoint."""
    body = {"transcript": TEXT, "response_format": "pcm", "seed": 1}
    route = f"{url}/v1/audio/generations"
    rows = []
    for number in clients:
        load = speech_load(route, number, seconds, rate=rate, json=body)
        rows.append(row("ours", number, *asyncio.run(load)))
    return rows


class _Tokenizer:
    """As many tokens as English text has; the published tokenizer comes with the weights."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def encode(self, text: str) -> list[int]:
        return [(index * 37) % 1000 for index in range(max(1, len(text) // 4))]

    def decode(self, _: list[int]) -> str:
        return ""

    def __call__(self, text: str) -> Any:
        import torch

        return torch.tensor(self.encode(text))[None]


def serve(packages: str, port: int) -> None:
    """Run the server of pocket-tts with random weights until it is ended."""
    sys.path.append(packages)
    import torch
    import uvicorn
    from pocket_tts import main as server
    from pocket_tts.models import tts_model
    from pocket_tts.modules import text_conditioner
    from pocket_tts.utils.config import CONFIGS_DIR, load_config

    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    torch.manual_seed(0)
    text_conditioner.build_tokenizer = _Tokenizer
    tts_model.split_into_best_sentences = lambda _tokenizer, text, *_, **__: [text]
    config = load_config(CONFIGS_DIR / f"{_CONFIG}.yaml")
    none = {"weights_path": None}
    config = config.model_copy(
        update={
            **none,
            "weights_path_without_voice_cloning": None,
            "flow_lm": config.flow_lm.model_copy(update=none),
            "mimi": config.mimi.model_copy(update=none),
        }
    )
    # Its own arguments: temperature, one sampler step, no noise clamp, a stop that never comes.
    model = tts_model.TTSModel._from_pydantic_config_with_weights(config, 0.3, 1, None, 1e9)
    for weights in model.parameters():
        if not torch.isfinite(weights).all() or weights.abs().max() > 1e4:  # uninitialised
            weights.data.normal_(0, 0.02)
    server.tts_model = model.eval()
    recording = 0.05 * torch.randn(1, 3 * model.sample_rate)
    server.default_voice_state = model.get_state_for_audio_prompt(recording)
    uvicorn.run(server.web_app, host="127.0.0.1", port=port, log_level="warning")


def main() -> None:
    """Serve pocket-tts until it is ended."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.pocket_tts", description=__doc__)
    parser.add_argument("--packages", required=True, help="folder with pocket-tts")
    parser.add_argument("--port", type=int, required=True, help="port to listen on")
    options = parser.parse_args()
    serve(options.packages, options.port)


if __name__ == "__main__":
    main()
