from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import soundfile

from pipeline.data.report.listening import Listening
from tests.factories.clips import tone


def _decoded(address: str) -> tuple[np.ndarray, int]:
    head, _, payload = address.partition(",")
    assert head == "data:audio/mpeg;base64"
    return soundfile.read(io.BytesIO(base64.b64decode(payload)))


@pytest.mark.parametrize(("rate", "played"), [(16_000, 16_000), (7_350, 8_000), (96_000, 48_000)])
def test_the_first_seconds_are_an_mp3_of_the_nearest_rate(tmp_path, rate, played):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.tile(tone(4.0, 300)[: 2 * rate, None], (1, 2)), rate)
    address, silence = Listening(1.0, 10**6).piece(str(path))
    assert silence == ""
    waveform, sample_rate = _decoded(address)
    assert sample_rate == played
    assert waveform.shape[1] == 2
    seconds = len(waveform) / sample_rate
    whole = min(1.0, len(tone(4.0, 300)[: 2 * rate]) / rate)
    assert whole <= seconds < whole + 0.3, "MP3 pads its frames"


def test_spans_non_finite_samples_and_what_cannot_be_read(tmp_path):
    wave = np.concatenate([np.zeros(16_000), 0.5 * np.ones(8_000), [np.nan, 3.0]])
    soundfile.write(tmp_path / "a.wav", wave, 16_000, subtype="FLOAT")
    listening = Listening(5.0, 10**6)
    waveform, _ = _decoded(listening.piece(str(tmp_path / "a.wav"), 1.0, 1.5)[0])
    assert np.abs(waveform).max() > 0.2
    assert listening.piece(str(tmp_path / "a.wav"))[0]
    (tmp_path / "b.wav").write_bytes(b"nothing")
    for name in ("b.wav", "none.wav", ""):
        address, silence = listening.piece(str(tmp_path / name))
        assert address == ""
        assert silence.startswith("cannot be played")


def test_the_page_has_its_fill(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(1.0, 300), 16_000)
    listening = Listening(1.0, 1)
    assert listening.piece(str(tmp_path / "a.wav"))[0]
    assert listening.piece(str(tmp_path / "a.wav")) == (
        "", "left out: the page has its fill of audio"
    )  # fmt: skip
