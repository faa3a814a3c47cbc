"""A small directory that `prepare` wrote, with rejects, awkward names and awkward words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipeline.data.prepare import PrepareSettings, prepare
from pipeline.storage import Folder
from tests.factories.clips import RATE, noise, tone, voice, write_codec

EVIL = "<script>alert(1)</script>"


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("report")
    waves = {
        "sound/birds/<b>robin&.wav": noise(1.0),
        "sound/birds/blackbird.wav": noise(1.5, 1),
        "sound/birds/copy.wav": noise(1.5, 1),
        "music/tones/a.wav": tone(2.0, 220),
        "speech/talk/one.wav": voice(1.4, 120),
        "speech/talk/quiet.wav": np.zeros(RATE, np.float32),
    }
    for name, wave in waves.items():
        path = root / "corpora" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, wave, RATE, subtype="PCM_16")
    (root / "corpora/speech/talk/one.txt").write_text(f"one {EVIL}\n")
    (root / "corpora/speech/talk/quiet.txt").write_text("hush\n")
    (root / "corpora/sound/birds/broken.wav").write_bytes(b"RIFF and nothing more")
    stages = {name: {"resources": {"workers": 0}} for name in ("encode", "describe", "shard")}
    ingest = {"resources": {"workers": 0}, "unit_clips": 3, "inputs": (str(root / "corpora"),)}
    settings = PrepareSettings.model_validate(stages | {"ingest": ingest})
    prepare(settings, Folder.at(root / "out"), write_codec(root / "codec"))
    return root / "out"
