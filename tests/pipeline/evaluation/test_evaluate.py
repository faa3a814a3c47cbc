"""An evaluation of a random bundle measures every form and writes what it says."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import soundfile
import torch
from torch import Tensor

from model.bundle.bundle import Bundle
from model.bundle.synthesis import SynthesisError, SynthesisRequest, Synthesizer
from pipeline.evaluation import intelligibility
from pipeline.evaluation.evaluate import EvaluateSettings, Evaluation, evaluate
from pipeline.evaluation.recogniser import Heard, RecogniserError
from pipeline.evaluation.results import write_evaluation
from pipeline.storage import Folder, table_bytes
from tests.factories.bundle import random_bundle
from tests.factories.cards import finish

RATE = 16_000
TEXTS = {"speech": "seven", "sound": None, "music": None}
SETTINGS = EvaluateSettings(per_modality=2, num_digits=1, num_flow_steps=1)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return random_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def without_pocketsphinx(monkeypatch: pytest.MonkeyPatch) -> None:
    """Saves loading its language model where no test looks at what it hears."""
    monkeypatch.setattr(intelligibility, "is_available", lambda: False)


@pytest.fixture
def data(tmp_path: Path) -> Folder:
    return prepared(tmp_path)


def prepared(tmp_path: Path, **music: object) -> Folder:
    """Two clips of each modality, those of music with the changes given."""
    rng = np.random.default_rng(0)
    rows = []
    for index in range(6):
        modality = list(TEXTS)[index % 3]
        path = tmp_path / f"{index}.wav"
        soundfile.write(path, 0.1 * rng.normal(size=8000), RATE)
        rows.append(
            {
                "clip_id": f"c/{index}",
                "uri": str(path),
                "start_s": None,
                "end_s": None,
                "modality": modality,
                "language": "en" if modality == "speech" else None,
                "is_singing": False,
                "split": "test",
                "duration_s": 0.5,
                "corpus": "c",
                "speaker": "c/anna" if modality == "speech" else None,
                "tags": ["noise"],
                "descriptions": ["noise"],
                "transcript": TEXTS[modality] if index else "two words",
                **(music if modality == "music" else {}),
            }
        )
    table = pa.Table.from_pylist(rows)
    root = Folder.at(tmp_path / "data")
    for name in ("clips", "descriptions"):
        root.child(name).write_bytes("parts/part-00000.parquet", _columns(name, table))
        finish(root.child(name), {})
    return root


def _columns(name: str, table: pa.Table) -> bytes:
    own = ["descriptions", "transcript"]
    kept = ["clip_id", *own] if name == "descriptions" else None
    return table_bytes(table.select(kept) if kept else table.drop_columns(own))


def measure(bundle: Bundle, data: Folder) -> Evaluation:
    return evaluate(bundle, data, SETTINGS)


def test_every_modality_and_form_is_measured(bundle: Bundle, data: Folder) -> None:
    seen = []
    evaluation = evaluate(bundle, data, SETTINGS, lambda done, total: seen.append((done, total)))
    results = evaluation.results
    assert seen == [(n, 6) for n in range(1, 7)]
    assert set(results["codec"]) == set(results["generation"]) == set(TEXTS)
    ratio = results["generation"]["sound"]["duration_ratio"]
    assert ratio["value"] == pytest.approx(1.0, abs=1e-3)
    assert ratio["n"] == 2
    measures = {item["name"]: item for item in results["measures"]}
    assert measures["spoken digits"]["real"]["n"] == 1
    assert measures["word error rate, pocketsphinx"]["real"]["n"] == 1
    assert measures["stop errors"]["generated"]["n"] == 2
    assert measures["voice similarity, statistics-1"]["reconstructed"]["n"] == 2
    assert "no recogniser was given" in results["not_measured"]["word and character error rate"]
    assert "0 classes" in results["not_measured"]["sound class, c"]
    assert "names a tempo" in results["not_measured"]["tempo within 5 %"]
    for item in evaluation.listenings:
        assert item.reconstructed.shape == item.real.shape == (1, 8000)


@pytest.mark.usefixtures("without_pocketsphinx")
def test_the_same_bundle_and_seed_give_the_same_numbers(bundle: Bundle, data: Folder) -> None:
    ours, again = measure(bundle, data).results, measure(bundle, data).results
    for results in (ours, again):
        for values in results["generation"].values():
            values.pop("real_time_factor")
    assert ours == again


@pytest.mark.usefixtures("without_pocketsphinx")
def test_the_real_time_factor_is_of_generation_alone(
    bundle: Bundle, data: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now_s=0.0)

    def reconstruct(waveform: Tensor, *_: object) -> Tensor:
        clock.now_s += 100.0
        return waveform

    def stream(*_: object) -> Iterator[Tensor]:
        clock.now_s += 3.0
        yield torch.full((1, 2 * RATE), 0.1)

    monkeypatch.setattr(f"{evaluate.__module__}.reconstruct", reconstruct)
    monkeypatch.setattr(Synthesizer, "stream", stream)
    timer = SimpleNamespace(perf_counter=lambda: clock.now_s)
    monkeypatch.setattr(f"{evaluate.__module__}.time", timer)
    generation = measure(bundle, data).results["generation"]
    assert {v["real_time_factor"]["value"] for v in generation.values()} == {1.5}


def test_a_clip_that_cannot_be_made_is_counted(
    bundle: Bundle, data: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise SynthesisError("not finite")

    monkeypatch.setattr(Synthesizer, "stream", fail)
    results = measure(bundle, data).results
    assert results["generation"]["music"]["failed"] == 2
    assert results["generation"]["music"]["mel_fd"] is None
    measures = {item["name"]: item for item in results["measures"]}
    assert measures["word error rate, pocketsphinx"]["generated"]["value"] == 1.0
    assert measures["stop errors, early"]["generated"]["value"] == 1.0


class FakeRecogniser:
    """Hears "two words" in everything."""

    name = "fake"
    languages = ("en",)

    def hear(self, waveform: Tensor, sample_rate: int, language: str) -> Heard:
        return Heard("Two words.", (0.1, waveform.shape[-1] / sample_rate))


@pytest.mark.usefixtures("without_pocketsphinx")
def test_a_recogniser_gives_error_rates_that_stand_on_the_page(
    bundle: Bundle, data: Folder, tmp_path: Path
) -> None:
    evaluation = evaluate(bundle, data, SETTINGS, recogniser=FakeRecogniser())
    measures = {item["name"]: item for item in evaluation.results["measures"]}
    sentences, digits = (
        measures[f"word error rate, {group}"] for group in ("all sentences", "single digits")
    )
    assert sentences["generated"]["value"] == sentences["real"]["value"] == 0
    assert digits["generated"]["value"] == 2  # a substitution and an insertion in one word
    assert "word and character error rate" not in evaluation.results["not_measured"]
    write_evaluation(evaluation, tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "<h2>Measures of speech</h2>" in page
    assert "<td>word error rate, all sentences</td><td>1</td><td>0</td>" in page
    assert "<h2>Not measured</h2>" in page


def test_a_folder_without_a_recogniser_is_refused_before_anything_is_made(
    bundle: Bundle, data: Folder, tmp_path: Path
) -> None:
    settings = EvaluateSettings(**{**SETTINGS.model_dump(), "asr": str(tmp_path)})
    with pytest.raises(RecogniserError, match=r"has no config.json, model.bin, tokenizer.json"):
        evaluate(bundle, data, settings, lambda *_: pytest.fail("a clip was made"))


@pytest.mark.usefixtures("without_pocketsphinx")
def test_voices_of_other_recordings_are_requested(
    bundle: Bundle, data: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"clip_id": f"c/{n}", "speaker_embedding": [float(n)] * 192} for n in range(6)]
    latents = data.child("latents")
    latents.write_bytes("parts/a.parquet", table_bytes(pa.Table.from_pylist(rows)))
    finish(latents, {})
    asked: dict[str, float | None] = {}

    def stream(_: Synthesizer, request: SynthesisRequest) -> Iterator[Tensor]:
        voice = request.voice
        asked[request.transcript or ""] = None if voice is None else float(voice[0])
        yield torch.full((1, RATE), 0.1)

    monkeypatch.setattr(Synthesizer, "stream", stream)
    settings = EvaluateSettings(**{**SETTINGS.model_dump(), "request_voices": True})
    with_voices = dataclasses.replace(bundle.model.config, speaker_id=260)
    monkeypatch.setattr(bundle.model, "config", with_voices)
    evaluate(bundle, data, settings)
    assert asked == {"two words": 3.0, "seven": 0.0, "": None}  # each other's, of the one speaker
    monkeypatch.setattr(bundle.model, "config", dataclasses.replace(with_voices, speaker_id=None))
    with pytest.raises(ValueError, match="the bundle has no voices"):
        evaluate(bundle, data, settings)


@pytest.mark.usefixtures("without_pocketsphinx")
def test_other_recordings_of_the_speaker_are_continued_where_they_are_long_enough(
    bundle: Bundle, data: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(1)
    soundfile.write(tmp_path / "0.wav", 0.1 * rng.normal(size=20_000), RATE)
    said_before: dict[str, str | None] = {}

    def stream(_: Synthesizer, request: SynthesisRequest) -> Iterator[Tensor]:
        prompt = request.continues
        said_before[request.transcript or ""] = None if prompt is None else prompt.transcript
        yield torch.full((1, RATE), 0.1)

    monkeypatch.setattr(Synthesizer, "stream", stream)
    settings = EvaluateSettings(**{**SETTINGS.model_dump(), "continue_recordings": True})
    evaluate(bundle, data, settings)
    # The recording of "seven" holds half a second.
    assert said_before == {"two words": None, "seven": "two words", "": None}


@pytest.mark.usefixtures("without_pocketsphinx")
def test_singing_is_asked_for_with_its_words(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[SynthesisRequest] = []

    def stream(_: Synthesizer, request: SynthesisRequest) -> Iterator[Tensor]:
        asked.append(request)
        yield torch.full((1, RATE), 0.1)

    monkeypatch.setattr(Synthesizer, "stream", stream)
    measure(bundle, prepared(tmp_path, is_singing=True, transcript="la la", language="it"))
    sung = [request for request in asked if request.modality == "music"]
    assert [(request.transcript, request.is_singing) for request in sung] == [("la la", True)] * 2
    assert [(request.language, request.duration_s) for request in sung] == [("it", None)] * 2
    spoken = [request for request in asked if request.modality == "speech"]
    assert {request.transcript for request in spoken} == {"two words", "seven"}
    assert not any(request.is_singing for request in spoken)
    (seconds,) = {request.duration_s for request in asked if request.modality == "sound"}
    assert seconds == 0.5


@pytest.mark.usefixtures("without_pocketsphinx")
def test_the_page_says_which_clips_are_not_held_out(
    bundle: Bundle, data: Folder, tmp_path: Path
) -> None:
    write_evaluation(measure(bundle, data), tmp_path / "held-out", samples_per_modality=1)
    page = (tmp_path / "held-out" / "report.html").read_text("utf-8")
    assert "Held-out clips in three forms" in page
    assert "training clip" not in page

    parts = data.child("clips").child("parts")
    rows = parts.read_table("part-00000.parquet").to_pylist()
    rows[2]["split"] = "train"
    parts.write_bytes("part-00000.parquet", table_bytes(pa.Table.from_pylist(rows)))
    settings = EvaluateSettings(**{**SETTINGS.model_dump(), "fill_from_training": True})
    evaluation = evaluate(bundle, data, settings)
    counts = evaluation.results["clips"]["music"]
    assert (counts["test"], counts["train"]) == (1, 1)
    write_evaluation(evaluation, tmp_path / "filled")
    page = (tmp_path / "filled" / "report.html").read_text("utf-8")
    assert "6 clips, 1 of them from the training split and not held out, in three" in page
    assert "music: 1 test, 1 train" in page
    assert page.count("(training clip)</h3>") == 3


@pytest.mark.usefixtures("without_pocketsphinx")
def test_results_samples_and_page_are_written(bundle: Bundle, data: Folder, tmp_path: Path) -> None:
    write_evaluation(measure(bundle, data), tmp_path / "out", samples_per_modality=1)
    written = json.loads((tmp_path / "out" / "results.json").read_text("utf-8"))
    assert written["bundle_digest"] == bundle.digest
    wavs = sorted((tmp_path / "out" / "samples").glob("*.wav"))
    assert len(wavs) == 9
    samples, rate = soundfile.read(wavs[0])
    assert rate == RATE
    assert np.abs(samples).max() > 0
    assert all(wav.with_suffix(".png").exists() for wav in wavs)
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert page.count("data:audio/wav") == 9
    assert "mel-FD" in page
