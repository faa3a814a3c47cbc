"""Clients of an endpoint, many at a time: some leave, some read slowly, all check what they got."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx

from pipeline.serving.formats import AudioLayout

Manner = Literal["reads", "leaves", "reads slowly"]
LEAVING_SHARE = 0.2
SLOW_SHARE = 0.1


@dataclass(frozen=True)
class Ask:
    """A request and how its client behaves: one that leaves takes the first chunk alone."""

    body: Mapping[str, Any]
    manner: Manner = "reads"


@dataclass(frozen=True)
class Outcome:
    """What became of a request.

    Attributes:
        ask: The request.
        status: HTTP status.
        pcm: Audio that came, raw.
        is_complete: Whether the answer ended as a complete one does.
        fault: What is wrong with the answer; empty while all is well.
        first_s: From the request to the first audio, seconds.
        total_s: From the request to the end, seconds.
        layout: Rate and channels of the audio; None for a refusal.
        retry_after_s: When a refused client may come again, seconds.
    """

    ask: Ask
    status: int
    pcm: bytes = b""
    is_complete: bool = False
    fault: str = ""
    first_s: float = 0.0
    total_s: float = 0.0
    layout: AudioLayout | None = None
    retry_after_s: int = 0

    @property
    def audio_s(self) -> float:
        """Duration of the audio, seconds."""
        return self.layout.duration_s(len(self.pcm)) if self.layout else 0.0


@dataclass
class Report:
    """Outcomes of a load, and how long it took in all."""

    outcomes: list[Outcome] = field(default_factory=list)
    elapsed_s: float = 0.0

    @property
    def complete(self) -> list[Outcome]:
        """Those that were read to their end."""
        return [outcome for outcome in self.outcomes if outcome.is_complete]

    @property
    def faults(self) -> list[str]:
        """What must not happen: a wrong, short or broken answer, or a refusal of another kind."""
        return [outcome.fault for outcome in self.outcomes if outcome.fault]

    @property
    def statuses(self) -> Counter[int]:
        """How many requests were answered with each status."""
        return Counter(outcome.status for outcome in self.outcomes)


def asks(bodies: Sequence[Mapping[str, Any]], seed: int) -> Iterator[Ask]:
    """Requests without end, in random order: a fifth leaves, a tenth reads slowly."""
    drawn = random.Random(seed)
    manners: tuple[Manner, ...] = ("leaves", "reads slowly", "reads")
    weights = (LEAVING_SHARE, SLOW_SHARE, 1 - LEAVING_SHARE - SLOW_SHARE)
    while True:
        yield Ask(drawn.choice(bodies), drawn.choices(manners, weights)[0])


async def load(
    url: str,
    source: Iterator[Ask],
    num_clients: int,
    *,
    is_right: Callable[[Mapping[str, Any], bytes], bool],
    seconds: float | None = None,
    slow_pause_s: float = 0.05,
    waits_when_refused: bool = True,
) -> Report:
    """Let clients send one request after another.

    Args:
        url: The endpoint.
        source: Requests; with `seconds`, as many as are sent until then.
        num_clients: Clients at a time.
        is_right: Whether a complete answer to a body is the right audio.
        seconds: When clients send no more; None sends all requests of the source.
        slow_pause_s: What a slow reader waits before each chunk.
        waits_when_refused: Whether clients wait as Retry-After says.
    """
    report = Report()
    began = time.perf_counter()
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)

    async def client(session: httpx.AsyncClient) -> None:
        for ask in source:
            outcome = await _ask(session, ask, is_right, slow_pause_s)
            report.outcomes.append(outcome)
            if seconds is not None and time.perf_counter() - began > seconds:
                return
            if outcome.status == 429 and waits_when_refused:
                await asyncio.sleep(outcome.retry_after_s)

    async with httpx.AsyncClient(base_url=url, timeout=None, limits=limits) as session:
        await asyncio.gather(*(client(session) for _ in range(num_clients)))
    report.elapsed_s = time.perf_counter() - began
    return report


async def _ask(
    session: httpx.AsyncClient,
    ask: Ask,
    is_right: Callable[[Mapping[str, Any], bytes], bool],
    slow_pause_s: float,
) -> Outcome:
    body = {**ask.body, "response_format": "pcm"}
    sent_at = time.perf_counter()
    async with session.stream("POST", "/v1/audio/generations", json=body) as answer:
        if answer.status_code != 200:
            return _refused(ask, answer, await answer.aread())
        rate, channels = (int(answer.headers[name]) for name in ("X-Sample-Rate", "X-Channels"))
        layout = AudioLayout(rate, channels)
        pcm, first_s, fault = bytearray(), 0.0, ""
        try:
            async with aclosing(answer.aiter_raw()) as chunks:  # type: ignore[type-var]
                async for chunk in chunks:
                    first_s = first_s or time.perf_counter() - sent_at
                    pcm += chunk
                    if ask.manner == "leaves":
                        return Outcome(ask, 200, bytes(pcm), first_s=first_s, layout=layout)
                    if ask.manner == "reads slowly":
                        await asyncio.sleep(slow_pause_s)
        except httpx.RemoteProtocolError as error:
            return Outcome(ask, 200, fault=f"{ask.body} broke off: {error}", layout=layout)
    total_s = time.perf_counter() - sent_at
    if not is_right(ask.body, bytes(pcm)):
        fault = f"{ask.body} ended as complete with other audio, {len(pcm)} bytes"
    return Outcome(ask, 200, bytes(pcm), True, fault, first_s, total_s, layout)


def _refused(ask: Ask, answer: httpx.Response, content: bytes) -> Outcome:
    """A refusal is right if it says when to come again."""
    retry_after_s = int(answer.headers.get("Retry-After", "0"))
    is_busy = answer.status_code == 429 and retry_after_s > 0
    fault = "" if is_busy else f"{answer.status_code} {dict(answer.headers)} {content[:200]!r}"
    return Outcome(ask, answer.status_code, fault=fault, retry_after_s=retry_after_s)
