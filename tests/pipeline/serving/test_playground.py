"""The playground page over a counting engine in Chromium, and its examples over the model."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from fastapi.testclient import TestClient

from model.bundle import DEFAULT_BUNDLE
from pipeline.audio.files import read_audio
from pipeline.serving.answer import Ending, Item, Opening
from pipeline.serving.app import create_app
from pipeline.serving.formats import AudioLayout, pcm_bytes
from pipeline.serving.information import PLAYGROUND
from pipeline.serving.keys import FILES_PATH, KEYS_VARIABLE, key_digests
from pipeline.serving.offline import open_synthesizer
from pipeline.serving.schemas import AudioJob, GenerationBody
from pipeline.serving.settings import ServeSettings
from pipeline.serving.stream import Service
from pipeline.serving.worker import BundleWorker
from tests.factories.browser import Browser, Page, browser
from tests.factories.http import served

RATE, TONE_HZ, CHUNK_S, NUM_CHUNKS = 16_000, 1_000, 0.5, 3
KEY = "k" * 16
IS_DONE = "!document.querySelector('#download').hidden"


class ToneEngine:
    """Half a second of a tone for each permit, three for a request; keeps the jobs."""

    def __init__(self) -> None:
        self.permits = threading.Semaphore(0)
        self.jobs: list[AudioJob] = []

    async def generate(self, job: AudioJob) -> AsyncIterator[Item]:
        self.jobs.append(job)
        yield Opening(AudioLayout(RATE, 1), "d1")
        for index in range(NUM_CHUNKS):
            while not self.permits.acquire(blocking=False):
                await asyncio.sleep(0.005)
            yield pcm_bytes(tone()[:, index * len_of_chunk() : (index + 1) * len_of_chunk()])
        yield Ending()

    async def service(self) -> Service:
        voices = {"ada": "A woman speaks.", "bob": "A man speaks."}
        return Service(AudioLayout(RATE, 1), voices, 2, "d1", {"alloy": "ada"}, "bob")


def len_of_chunk() -> int:
    return int(RATE * CHUNK_S)


def tone() -> np.ndarray:
    times = np.arange(NUM_CHUNKS * len_of_chunk()) / RATE
    return 0.5 * np.sin(2 * np.pi * TONE_HZ * times)[None]


def mel(hz: float) -> float:
    return 2595 * float(np.log10(1 + hz / 700))


class Examples(HTMLParser):
    """Bodies of the example buttons of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.bodies: list[dict[str, Any]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if body := dict(attrs).get("data-body"):
            self.bodies.append(json.loads(body))


def test_page_and_files_need_no_key_and_nothing_from_elsewhere() -> None:
    digests = key_digests({KEYS_VARIABLE: f"web:{KEY}"})
    with TestClient(create_app(ToneEngine(), ServeSettings(), key_digests=digests)) as client:
        page = client.get("/")
        assert page.headers["content-type"].startswith("text/html")
        assert page.headers["content-security-policy"].startswith("default-src 'self'")
        for file in PLAYGROUND.iterdir():
            answer = client.get(f"{FILES_PATH}/{file.name}")
            assert answer.text == file.read_text("utf-8")
            assert not re.search(r"//\w", answer.text)
        assert client.get(f"{FILES_PATH}/..%2fapp.py").status_code == 404
        assert client.get("/v1/audio/voices").status_code == 401


def test_the_shipped_bundle_makes_every_example() -> None:
    examples = Examples((PLAYGROUND / "index.html").read_text("utf-8")).bodies
    assert {body["modality"] for body in examples} == {"speech", "sound", "music"}
    worker = BundleWorker(open_synthesizer(DEFAULT_BUNDLE, "cpu"))
    for fields in examples:
        handle = worker.open(GenerationBody.model_validate(fields).job(1, "A person speaks."))
        (step,) = worker.step([handle])
        assert step.failure is None
        assert step.samples
        worker.close(handle)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("chromium")) as running:
        yield running


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    with chromium.page() as opened:
        opened.call("Log.enable")
        yield opened
        faults = [
            event["params"]
            for event in chromium.events
            if event["method"] == "Runtime.exceptionThrown"
            or (
                event["method"] == "Log.entryAdded"
                and event["params"]["entry"]["source"] != "network"  # refusals of the endpoint
                and event["params"]["entry"]["level"] == "error"
            )
        ]
        assert faults == []


@pytest.fixture
def engine() -> ToneEngine:
    return ToneEngine()


@pytest.fixture
def url(engine: ToneEngine) -> Iterator[str]:
    with served(create_app(engine, ServeSettings())) as address:
        yield f"{address}/"
        engine.permits.release(100)  # for what a test left unfinished


def listed(page: Page, url: str, **window: Any) -> None:
    """Open the page and wait for its voices."""
    page.open(url, **window)
    page.wait_until("document.querySelectorAll('#voices li').length === 3")


def made(page: Page, engine: ToneEngine) -> None:
    """Let the request under way be made, and wait for it."""
    engine.permits.release(NUM_CHUNKS)
    page.wait_until("document.querySelector('#status').textContent.includes('seed')")


@pytest.mark.slow
def test_audio_is_played_and_drawn_while_it_is_made(
    page: Page, engine: ToneEngine, url: str, tmp_path: Path
) -> None:
    listed(page, url)
    engine.permits.release()
    page.click("#play")
    page.wait_until("parseFloat(document.querySelector('#playhead').style.left) > 0")
    assert page.evaluate(IS_DONE) is False
    assert page.evaluate("document.querySelector('#stop').disabled") is False
    made(page, engine)
    assert page.wait_until("document.querySelector('#whole').duration") == pytest.approx(1.5)
    # The brightest pixel of a column in the middle is that of the tone.
    brightness = page.evaluate(
        "(() => { const c = document.querySelector('#spectrogram');"
        " const p = c.getContext('2d').getImageData(c.width >> 1, 0, 1, c.height).data;"
        " return Array.from({length: c.height}, (_, y) => p[4 * y] + p[4 * y + 1]); })()"
    )
    height = 1 - (int(np.argmax(brightness)) + 0.5) / len(brightness)
    assert height == pytest.approx(mel(TONE_HZ) / mel(RATE / 2), abs=0.03)
    drawn = page.evaluate(
        "(() => { const c = document.querySelector('#waveform');"
        " return c.getContext('2d').getImageData(0, 0, c.width, c.height).data"
        ".filter((v, i) => i % 4 === 3 && v > 0).length / (c.width * c.height); })()"
    )
    assert drawn == pytest.approx(0.5, abs=0.05)  # the tone has half of full scale
    page.download("#download", tmp_path)
    name = page.evaluate("document.querySelector('#download').download")
    assert name == f"speech-{engine.jobs[-1].seed}.wav"
    samples, rate = soundfile.read(tmp_path / name, dtype="int16")
    assert rate == RATE
    assert samples.tobytes() == pcm_bytes(tone())
    assert str(engine.jobs[-1].seed) in soundfile.SoundFile(tmp_path / name).comment


@pytest.mark.slow
def test_the_history_makes_the_same_again_after_a_reload(
    page: Page, engine: ToneEngine, url: str
) -> None:
    listed(page, url)
    page.click("#examples button:nth-child(4)")
    made(page, engine)
    listed(page, url)
    assert f"seed {engine.jobs[0].seed}" in page.text("#history li")
    page.click("#history button")
    made(page, engine)
    assert engine.jobs[1] == engine.jobs[0]
    assert page.evaluate("document.querySelectorAll('#history li').length") == 1
    page.click("#forget")
    listed(page, url)
    assert page.evaluate("document.querySelectorAll('#history li').length") == 0


@pytest.mark.slow
def test_the_commands_do_what_the_page_does(
    page: Page, engine: ToneEngine, url: str, tmp_path: Path
) -> None:
    listed(page, url)
    words = 'It\'s "seven", \\n and $HOME: ä \U0001f600'
    page.fill("[name=transcript]", words)
    page.fill("#voice", "ada")
    page.fill("[name=num_flow_steps]", "3")
    page.click("#play")
    made(page, engine)
    assert (engine.jobs[0].transcript, engine.jobs[0].voice) == (words, "ada")
    (tmp_path / "ask.py").write_text(page.text("#python"), "utf-8")
    commands = [[sys.executable, "ask.py"]]
    if shutil.which("curl"):
        commands.append(["bash", "-c", page.text("#curl")])
    for command in commands:
        engine.permits.release(NUM_CHUNKS)
        subprocess.run(command, cwd=tmp_path, check=True, timeout=300)
        assert engine.jobs[-1] == engine.jobs[0]
        assert (tmp_path / "audio.wav").read_bytes().endswith(pcm_bytes(tone()))
    assert len(engine.jobs) == 1 + len(commands)


@pytest.mark.slow
def test_a_refusal_leads_to_the_field_at_fault(page: Page, url: str) -> None:
    listed(page, url)
    page.fill("[name=seconds]", "9999")
    page.click("#play")
    page.wait_until("document.querySelector('#problem').textContent.includes('3600')")
    assert page.evaluate("document.activeElement.name") == "seconds"
    assert page.evaluate("document.activeElement.getAttribute('aria-invalid')") == "true"
    assert page.evaluate("document.activeElement.checkVisibility()") is True


@pytest.mark.slow
def test_a_key_is_asked_for_and_sent(page: Page, engine: ToneEngine) -> None:
    digests = key_digests({KEYS_VARIABLE: f"web:{KEY}"})
    with served(create_app(engine, ServeSettings(), key_digests=digests)) as address:
        page.open(f"{address}/")
        page.wait_until("document.querySelector('#problem').textContent.includes('API key')")
        assert page.evaluate("document.activeElement.id") == "key"
        page.fill("#key", KEY)
        page.evaluate("document.querySelector('#key').dispatchEvent(new Event('change'))")
        page.wait_until("document.querySelectorAll('#voices li').length === 3")
        page.click("#play")
        made(page, engine)
        assert KEY not in page.text("#curl")
        assert "$AUDIOCALM_API_KEY" in page.text("#curl")


@pytest.mark.slow
def test_a_voice_from_the_microphone(page: Page, engine: ToneEngine, tmp_path: Path) -> None:
    heard_s: list[float] = []

    def embed(path: str) -> list[float]:
        audio = read_audio(path)
        heard_s.append(audio.waveform.shape[1] / audio.sample_rate)
        return [0.5, 0.25]

    app = create_app(engine, ServeSettings(voice_store=str(tmp_path)), embed=embed)
    with served(app) as address:
        listed(page, f"{address}/")
        assert page.evaluate("document.querySelector('#no-store').hidden") is True
        page.click("#record")
        page.wait_until("parseInt(document.querySelector('#recorded').value) >= 8")
        page.click("#record")
        page.wait_until("document.querySelector('#recorded').value.includes('recording')")
        page.fill("#add-voice [name=name]", "carla")
        page.fill("#add-voice [name=consent]", "The speaker has agreed.")
        page.click("#add-voice [type=submit]")
        page.wait_until("document.querySelectorAll('#voices li').length === 4")
        assert heard_s[0] > 0.1
        page.click("#voices [aria-label='Use the voice carla']")
        page.click("#play")
        made(page, engine)
        assert engine.jobs[0].voice_embedding == (0.5, 0.25)
        page.click("#voices [aria-label='Delete the voice carla']")
        page.wait_until("document.querySelectorAll('#voices li').length === 3")


@pytest.mark.slow
def test_keyboard_and_screen_reader(page: Page, engine: ToneEngine, url: str) -> None:
    listed(page, url)
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    reached = [
        node
        for node in nodes
        if any(
            entry["name"] == "focusable" and entry["value"]["value"]
            for entry in node.get("properties", [])
        )
    ]
    assert len(reached) > 25
    assert [node for node in reached if not node["name"]["value"].strip()] == []
    roles = {node["role"]["value"] for node in nodes if not node["ignored"]}
    assert {"main", "heading", "status", "alert", "radio", "form"} <= roles
    page.press("Tab", 9)
    assert page.text(":focus") == "Good morning"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.press("Enter", 13, text="\r")
    made(page, engine)
    assert engine.jobs[0].transcript.startswith("Good morning.")  # type: ignore[union-attr]


@pytest.mark.slow
def test_a_phone_and_a_dark_room(page: Page, url: str) -> None:
    listed(page, url, width=390, height=844)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    fields = "[...document.querySelectorAll('#request, .result')].map((e) => e.offsetLeft)"
    assert len(set(page.evaluate(fields))) == 1  # one column
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.show(width=390, height=844, is_dark=True)
    page.wait_until(f"getComputedStyle(document.body).backgroundColor !== {light!r}")


@pytest.mark.slow
def test_an_endpoint_without_a_store_says_so(page: Page, url: str) -> None:
    listed(page, url)
    assert page.evaluate("document.querySelector('#add-voice').hidden") is True
    assert "voice_store" in page.text("#no-store")
