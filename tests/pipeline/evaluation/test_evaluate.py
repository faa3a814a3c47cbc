"""Evaluations of a random bundle: figures, cache, resume after a kill, comparison, report."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import soundfile
import torch
from mlflow.tracking import MlflowClient
from torch import Tensor

from model.bundle.bundle import Bundle, load_bundle
from model.bundle.synthesis import SynthesisError, SynthesisRequest, Synthesizer
from pipeline.errors import IncompleteError, SettingsError, UnitsFailedError
from pipeline.evaluation import clip_worker, intelligibility
from pipeline.evaluation.evaluate import Evaluation, evaluate
from pipeline.evaluation.recogniser import Heard, RecogniserError
from pipeline.evaluation.results import log_evaluation, logged_figures, write_evaluation
from pipeline.evaluation.settings import EvaluateSettings
from pipeline.storage import Folder, table_bytes
from pipeline.tracking import TrackingSettings
from tests.factories.bundle import write_bundle
from tests.factories.cards import finish

RATE = 16_000
TEXTS = {"speech": "seven", "sound": None, "music": None}
SETTINGS = EvaluateSettings.model_validate(
    {"per_modality": 2, "num_digits": 1, "num_flow_steps": 1, "resources": {"workers": 0}}
)


def changed(**changes: object) -> EvaluateSettings:
    return EvaluateSettings.model_validate(SETTINGS.model_dump() | changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def bundle(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """The loaded bundle, in which tests may change what evaluations then find."""
    loaded = load_bundle(folder)
    monkeypatch.setattr(f"{evaluate.__module__}.load_bundle", lambda _: loaded)
    return loaded


@pytest.fixture
def out(tmp_path: Path) -> Folder:
    return Folder.at(tmp_path / "out")


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
                "content_sha256": f"{index}",
                "descriptions": ["noise"],
                "transcript": TEXTS[modality] if index else "two words",
                **(music if modality == "music" else {}),
            }
        )
    table = pa.Table.from_pylist(rows)
    root = Folder.at(tmp_path / "data")
    for name in ("clips", "descriptions"):
        root.child(name).write_bytes("parts/part-00000000.parquet", _columns(name, table))
        finish(root.child(name), {})
    return root


def _columns(name: str, table: pa.Table) -> bytes:
    own = ["descriptions", "transcript"]
    kept = ["clip_id", *own] if name == "descriptions" else None
    return table_bytes(table.select(kept) if kept else table.drop_columns(own))


def measure(folder: Path, data: Folder, out: Folder, **changes: object) -> Evaluation:
    return evaluate(folder, data, out, changed(**changes))


def without_timing(results: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in results.items() if name != "timing"}


def test_every_modality_and_form_is_measured(folder: Path, data: Folder, out: Folder) -> None:
    seen = []
    evaluation = evaluate(
        folder, data, out, SETTINGS, lambda done, total: seen.append((done, total))
    )
    results = evaluation.results
    assert seen == [(n, 6) for n in range(1, 7)]
    measures = {(item["modality"], item["name"]): item for item in results["measures"]}
    for modality in TEXTS:
        assert measures[modality, "codec: log-mel distance"]["reconstructed"]["n"] == 2
    ratio = measures["sound", "duration relative to the recordings"]["generated"]
    assert ratio["value"] == pytest.approx(1.0, abs=1e-3)
    assert ratio["n"] == 2
    assert measures["speech", "spoken digits"]["real"]["n"] == 1
    assert measures["speech", "word error rate, pocketsphinx"]["real"]["n"] == 1
    assert measures["speech", "stop errors"]["generated"]["n"] == 2
    assert measures["speech", "voice similarity, statistics-1"]["reconstructed"]["n"] == 2
    assert "no recogniser was given" in results["not_measured"]["word and character error rate"]
    assert "0 classes" in results["not_measured"]["sound class, c"]
    assert "names a tempo" in results["not_measured"]["tempo within 5 %"]
    assert "80 are needed" in results["not_measured"]["mel-FD of music"]
    for clips in evaluation.clips.values():
        for clip in clips:
            item = evaluation.listen(clip)
            assert item.reconstructed.shape == item.real.shape == (1, 8000)
            assert item.generated is not None


@pytest.mark.usefixtures("without_pocketsphinx")
def test_evaluating_again_reads_the_cache_and_gives_the_same_results(
    folder: Path, data: Folder, out: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = measure(folder, data, out)
    monkeypatch.setattr(Synthesizer, "stream", lambda *_: pytest.fail("generated again"))
    again = measure(folder, data, out)
    assert again.results == first.results
    assert again.clip_values == first.clip_values


@pytest.mark.usefixtures("without_pocketsphinx")
def test_another_seed_or_bundle_generates_anew_and_another_metric_does_not(
    folder: Path, data: Folder, out: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    original = Synthesizer.stream

    def stream(synthesizer: Synthesizer, request: SynthesisRequest) -> Iterator[Tensor]:
        made.append(request.seed)
        return original(synthesizer, request)

    monkeypatch.setattr(Synthesizer, "stream", stream)
    measure(folder, data, out)
    assert made == [0] * 6
    evaluate(folder, data, out, SETTINGS, recogniser=FakeRecogniser())
    assert len(made) == 6
    measure(folder, data, out, seed=1)
    assert made[6:] == [1] * 6
    measure(write_bundle(tmp_path / "other", seed=1), data, out)
    assert len(made) == 18


CHILD = """
import os, signal, sys
from pathlib import Path
from pipeline.evaluation import intelligibility
from pipeline.evaluation.evaluate import evaluate
from pipeline.evaluation.settings import EvaluateSettings
from pipeline.evaluation.results import write_evaluation
from pipeline.storage import Folder
intelligibility.is_available = lambda: False
settings, bundle, data, out, last = sys.argv[1:]
original, count = Folder.write_bytes, 0
def write(folder, name, payload):
    global count
    count += 1
    if count == int(last):
        os.kill(os.getpid(), signal.SIGKILL)
    original(folder, name, payload)
Folder.write_bytes = write
settings = EvaluateSettings.model_validate_json(settings)
write_evaluation(evaluate(bundle, Folder.at(data), Folder.at(out), settings), Path(out), 1)
"""


@pytest.mark.slow
@pytest.mark.usefixtures("without_pocketsphinx")
@pytest.mark.parametrize("write", [5, 21])
def test_a_killed_evaluation_resumes_to_the_results_of_an_uninterrupted_one(
    folder: Path, data: Folder, out: Folder, tmp_path: Path, write: int
) -> None:
    # The 5th write is a record of an observed clip, the 21st a picture of the report.
    words = [SETTINGS.model_dump_json(), str(folder), data.path, out.path, str(write)]
    killed = subprocess.run([sys.executable, "-c", CHILD, *words], env=dict(os.environ))
    assert killed.returncode == -signal.SIGKILL
    assert out.files(recursive=True)
    assert not out.exists("results.json")
    write_evaluation(measure(folder, data, out), Path(out.path), 1)
    whole = Folder.at(tmp_path / "whole")
    write_evaluation(measure(folder, data, whole), Path(whole.path), 1)
    assert without_timing(out.read_json("results.json")) == without_timing(
        whole.read_json("results.json")
    )
    assert out.read_bytes("clips.json") == whole.read_bytes("clips.json")
    names = whole.files(recursive=True)
    assert [n for n in out.files(recursive=True) if ".aside-" not in n] == names
    for name in names:
        if name.endswith(".wav"):
            assert out.read_bytes(name) == whole.read_bytes(name)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("ray_session", "without_pocketsphinx")
def test_worker_processes_give_the_results_of_the_calling_process(
    folder: Path, data: Folder, out: Folder, tmp_path: Path
) -> None:
    here = measure(folder, data, Folder.at(tmp_path / "here"))
    there = measure(folder, data, out, resources={"workers": 2})
    assert without_timing(there.results) == without_timing(here.results)
    assert there.clip_values == here.clip_values


@pytest.mark.usefixtures("without_pocketsphinx")
def test_results_of_an_earlier_run_are_gone_while_another_one_runs(
    folder: Path, data: Folder, out: Folder
) -> None:
    write_evaluation(measure(folder, data, out), Path(out.path), 1)
    assert {"results.json", "report.html", "report.md", "clips.json"} <= set(out.files())
    seen: set[str] = set()
    again = evaluate(folder, data, out, changed(seed=1), lambda *_: seen.update(out.files()))
    assert out.child("cache").files()
    assert not seen
    (Path(out.path) / "samples" / "speech-test-earlier-real.wav").write_bytes(b"")
    write_evaluation(again, Path(out.path), 1)
    assert "speech-test-earlier-real.wav" not in out.child("samples").files()


@pytest.mark.usefixtures("without_pocketsphinx")
def test_a_clip_that_fails_is_named_and_the_others_are_kept(
    folder: Path, data: Folder, out: Folder, tmp_path: Path
) -> None:
    lost = tmp_path / "3.wav"
    audio = lost.read_bytes()
    lost.unlink()
    with pytest.raises(UnitsFailedError, match=r"2 of 6 clips failed.*clip c/3: .*only these"):
        measure(folder, data, out)
    lost.write_bytes(audio)
    counts = []
    evaluate(folder, data, out, SETTINGS, lambda done, total: counts.append(total))
    # The lost recording is also the reference of the other clip of its speaker.
    assert counts == [2, 2]


@pytest.mark.usefixtures("without_pocketsphinx")
def test_further_seeds_measure_diversity(folder: Path, data: Folder, out: Folder) -> None:
    results = measure(folder, data, out, num_seeds=3).results
    found = {m["modality"]: m for m in results["measures"] if m["name"].startswith("diversity")}
    assert {modality: m["generated"]["n"] for modality, m in found.items()} == dict.fromkeys(
        TEXTS, 2
    )
    assert all(measure["generated"]["value"] > 0 for measure in found.values())


@pytest.mark.usefixtures("without_pocketsphinx")
def test_the_real_time_factor_is_of_generation_alone(
    folder: Path, data: Folder, out: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now_s=0.0)

    def reconstruct(waveform: Tensor, *_: object) -> Tensor:
        clock.now_s += 100.0
        return waveform

    def stream(*_: object) -> Iterator[Tensor]:
        clock.now_s += 3.0
        yield torch.full((1, 2 * RATE), 0.1)

    monkeypatch.setattr(clip_worker, "reconstruct", reconstruct)
    monkeypatch.setattr(Synthesizer, "stream", stream)
    timer = SimpleNamespace(perf_counter=lambda: clock.now_s)
    monkeypatch.setattr(clip_worker, "time", timer)
    timing = measure(folder, data, out).results["timing"]
    assert {timing[modality]["real_time_factor"]["value"] for modality in TEXTS} == {1.5}


def test_a_clip_that_cannot_be_made_is_counted(
    folder: Path, data: Folder, out: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise SynthesisError("not finite")

    monkeypatch.setattr(Synthesizer, "stream", fail)
    evaluation = measure(folder, data, out)
    assert evaluation.results["failed"] == {f"c/{n}": "not finite" for n in range(6)}
    measures = {(m["modality"], m["name"]): m for m in evaluation.results["measures"]}
    assert measures["music", "level, dBFS"]["generated"]["n"] == 0
    assert measures["speech", "word error rate, pocketsphinx"]["generated"]["value"] == 1.0
    assert measures["speech", "stop errors, early"]["generated"]["value"] == 1.0
    write_evaluation(evaluation, Path(out.path))
    assert "<h2>Clips that were not generated</h2>" in out.read_bytes("report.html").decode()


class FakeRecogniser:
    """Hears "two words" in everything."""

    name = "fake"
    languages = ("en",)
    version = "1"
    spelling = None

    def hear(self, waveform: Tensor, sample_rate: int, language: str) -> Heard:
        return Heard("Two words.", (0.1, waveform.shape[-1] / sample_rate))


@pytest.mark.usefixtures("without_pocketsphinx")
def test_a_recogniser_gives_error_rates_and_too_few_clips_are_not_printed(
    folder: Path, data: Folder, out: Folder
) -> None:
    evaluation = evaluate(folder, data, out, SETTINGS, recogniser=FakeRecogniser())
    measures = {item["name"]: item for item in evaluation.results["measures"]}
    sentences, digits = (
        measures[f"word error rate, {group}"] for group in ("all sentences", "single digits")
    )
    assert sentences["generated"]["value"] == sentences["real"]["value"] == 0
    assert digits["generated"]["value"] == 2  # a substitution and an insertion in one word
    assert "word and character error rate" not in evaluation.results["not_measured"]
    write_evaluation(evaluation, Path(out.path))
    page = out.read_bytes("report.html").decode()
    assert "<h2>Measures of speech</h2>" not in page, "no figure has five clips"
    assert "<td>speech: word error rate (all sentences, " in page
    assert "<td>1 clips each; 5 are needed: raise per_modality, per_corpus or num_digits" in page
    assert "<dt>heard</dt><dd>Two words.</dd>" in page
    assert '<th scope="col">heard</th>' in page
    assert "| recogniser of words | fake 1 |" in out.read_bytes("report.md").decode()


def test_a_folder_without_a_recogniser_is_refused_before_anything_is_made(
    folder: Path, data: Folder, out: Folder, tmp_path: Path
) -> None:
    with pytest.raises(RecogniserError, match=r"has no config.json, model.bin, tokenizer.json"):
        measure(folder, data, out, asr=str(tmp_path))
    assert not out.exists()


@pytest.mark.usefixtures("without_pocketsphinx")
def test_an_evaluation_is_compared_with_a_complete_one_on_the_same_clips(
    folder: Path, data: Folder, out: Folder, tmp_path: Path
) -> None:
    other = Folder.at(tmp_path / "other")
    with pytest.raises(IncompleteError, match=r"has no results\.json: give the output directory"):
        measure(folder, data, out, against=other.path)
    write_evaluation(measure(folder, data, other), Path(other.path), 1)
    rows = measure(folder, data, out, against=other.path).results["comparison"]["rows"]
    assert rows == []  # two clips are too few
    values = other.read_json("clips.json")
    for entry in values["measures"]:
        for form in entry["forms"].values():
            for name in list(form):
                form[f"other/{name}"] = form.pop(name)
    other.write_json("clips.json", values)
    with pytest.raises(SettingsError, match="no clips in common"):
        measure(folder, data, out, against=other.path)


@pytest.mark.usefixtures("without_pocketsphinx")
def test_published_figures_stand_beside_an_empty_cell(
    folder: Path, data: Folder, out: Folder
) -> None:
    published = [{"measure": "word error rate", "value": 0.02, "source": "a paper"}]
    write_evaluation(measure(folder, data, out, published=published), Path(out.path), 1)
    table = out.read_bytes("report.md").decode()
    assert "| word error rate | 0.02 | a paper | not run here |" in table
    few = [{"measure": "stop errors", "value": 0.0, "source": "a paper"}]
    write_evaluation(measure(folder, data, out, published=few), Path(out.path), 1)
    table = out.read_bytes("report.md").decode()
    assert "| stop errors | 0 | a paper | too few clips: 2 |" in table


@pytest.mark.usefixtures("without_pocketsphinx")
def test_voices_of_other_recordings_are_requested(
    bundle: Bundle, data: Folder, out: Folder, monkeypatch: pytest.MonkeyPatch
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
    with_voices = dataclasses.replace(bundle.model.config, speaker_id=260)
    monkeypatch.setattr(bundle.model, "config", with_voices)
    measure(Path(), data, out, request_voices=True)
    assert asked == {"two words": 3.0, "seven": 0.0, "": None}  # each other's, of the one speaker
    monkeypatch.setattr(bundle.model, "config", dataclasses.replace(with_voices, speaker_id=None))
    with pytest.raises(ValueError, match="the bundle has no voices"):
        measure(Path(), data, out, request_voices=True)


@pytest.mark.usefixtures("without_pocketsphinx")
def test_other_recordings_of_the_speaker_are_continued_where_they_are_long_enough(
    folder: Path, data: Folder, out: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(1)
    soundfile.write(tmp_path / "0.wav", 0.1 * rng.normal(size=20_000), RATE)
    said_before: dict[str, str | None] = {}

    def stream(_: Synthesizer, request: SynthesisRequest) -> Iterator[Tensor]:
        prompt = request.continues
        said_before[request.transcript or ""] = None if prompt is None else prompt.transcript
        yield torch.full((1, RATE), 0.1)

    monkeypatch.setattr(Synthesizer, "stream", stream)
    measure(folder, data, out, continue_recordings=True)
    # The recording of "seven" holds half a second.
    assert said_before == {"two words": None, "seven": "two words", "": None}


@pytest.mark.usefixtures("without_pocketsphinx")
def test_singing_is_asked_for_with_its_words(
    folder: Path, out: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[SynthesisRequest] = []

    def stream(_: Synthesizer, request: SynthesisRequest) -> Iterator[Tensor]:
        asked.append(request)
        yield torch.full((1, RATE), 0.1)

    monkeypatch.setattr(Synthesizer, "stream", stream)
    data = prepared(tmp_path, is_singing=True, transcript="la la", language="it")
    measure(folder, data, out)
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
    folder: Path, data: Folder, out: Folder
) -> None:
    write_evaluation(measure(folder, data, out), Path(out.path), samples_per_modality=1)
    page = out.read_bytes("report.html").decode()
    assert "6 held-out clips in three forms" in page
    assert "training clip" not in page

    parts = data.child("clips").child("parts")
    rows = parts.read_table("part-00000000.parquet").to_pylist()
    rows[2]["split"] = "train"
    parts.write_bytes("part-00000000.parquet", table_bytes(pa.Table.from_pylist(rows)))
    evaluation = measure(folder, data, out, fill_from_training=True)
    counts = evaluation.results["clips"]["music"]
    assert (counts["test"], counts["train"]) == (1, 1)
    write_evaluation(evaluation, Path(out.path))
    page = out.read_bytes("report.html").decode()
    assert "6 clips, 1 of them from the training split and not held out, in three" in page
    assert "music: 1 test, 1 train" in page
    assert page.count(" (training clip c/2)</h3>") == 1
    assert page.count(" (held-out clip c/") > page.count("</audio>")


@pytest.mark.usefixtures("without_pocketsphinx")
def test_results_samples_and_page_are_written(folder: Path, data: Folder, out: Folder) -> None:
    write_evaluation(measure(folder, data, out), Path(out.path), samples_per_modality=1)
    written = json.loads(out.read_bytes("results.json"))
    assert written["bundle_digest"] == load_bundle(folder).digest
    wavs = sorted((Path(out.path) / "samples").glob("*.wav"))
    assert len(wavs) == 9
    samples, rate = soundfile.read(wavs[0])
    assert rate == RATE
    assert np.abs(samples).max() > 0
    assert all(wav.with_suffix(".png").exists() for wav in wavs)
    page = out.read_bytes("report.html").decode()
    assert page.count("data:audio/wav") == 9
    assert page.count('<div class="cards">') == page.count("worst 1 of 2: ") // 7 == 3
    assert page.index("<h2>What was measured</h2>") < page.index("<h2>Listen</h2>")
    assert "<h2>Worst clips of speech</h2>" in page


@pytest.mark.slow
@pytest.mark.usefixtures("without_pocketsphinx")
def test_figures_page_and_samples_go_to_mlflow(
    folder: Path, data: Folder, out: Folder, tmp_path: Path
) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    evaluation = measure(folder, data, out, tracking={"uri": uri, "experiment": "e"})
    write_evaluation(evaluation, Path(out.path), samples_per_modality=1)
    for _ in range(2):
        log_evaluation(evaluation.results, Path(out.path), TrackingSettings(uri=uri))
    client = MlflowClient(tracking_uri=uri)
    (experiment,) = [e for e in client.search_experiments() if e.name == "audiocalm"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.params["bundle"] == evaluation.results["bundle"]
    assert run.data.params["per_modality"] == "2"
    names = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert {"report.html", "report.md", "results.json", "clips.json", "samples"} <= names
    assert len(client.list_artifacts(run.info.run_id, "samples")) == 18
    assert run.info.status == "FINISHED"


def test_logged_figures_have_names_that_mlflow_takes_and_enough_clips() -> None:
    sure, few = ({"value": 0.5, "low": None, "high": None, "n": n} for n in (5, 4))
    measures = [
        {"modality": "music", "name": "tempo within 5 %, or double", "real": sure, "generated": few}
    ]
    assert logged_figures(measures) == {"music/tempo within 5  or double/real": 0.5}
