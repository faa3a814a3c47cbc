"""The same calls and commands on `s3://` URIs as on local paths."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from pyarrow import fs

import pipeline.audio.files
from pipeline.audio.files import AudioError, file_sha256, read_audio
from pipeline.data.ingest import IngestSettings, ingest
from pipeline.data.prepare import PrepareSettings, prepare
from pipeline.data.units.stage import Resources
from pipeline.errors import IncompleteError, PipelineError
from pipeline.storage import COMPLETE, Folder, sha256
from tests.factories.clips import RATE, noise, tone, voice, write_codec, write_recordings
from tests.factories.s3 import objects, s3_bucket, upload
from tests.factories.stage import number_units, run_numbers, snapshot


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with s3_bucket("audiocalm-test") as uri:
        yield uri


@pytest.fixture
def corpus(tmp_path) -> Path:
    """Four clips of every modality, one transcribed and one silent, in names that need quoting."""
    root = tmp_path / "corpora"
    waves = {
        "sound/a bird/robin & wren.wav": noise(1.0),
        "music/tones/a#1.flac": tone(1.2, 220),
        "speech/talk/one.wav": voice(1.4, 120),
        "sound/a bird/still.wav": np.zeros(4_000, np.float32),
    }
    write_recordings(root, waves)
    (root / "speech/talk/one.txt").write_text("one two three\n")
    return root


def test_files_are_written_read_listed_and_removed(bucket):
    folder = Folder.at(f"{bucket}/files")
    assert not folder.exists()
    folder.write_bytes("deep/ü b.bin", b"0123456789")
    folder.write_bytes("deep/ü b.bin", b"9876543210")
    assert folder.read_bytes("deep/ü b.bin") == b"9876543210"
    assert folder.read_range("deep/ü b.bin", 3, 4) == b"6543"
    assert folder.files(recursive=True) == ["deep/ü b.bin"]
    assert folder.files() == []
    assert folder.exists("deep/ü b.bin")
    assert folder.child("deep").exists()
    folder.delete("deep/ü b.bin")
    folder.delete("deep/ü b.bin")
    assert not folder.exists("deep/ü b.bin")
    with pytest.raises(FileNotFoundError):
        folder.read_bytes("deep/ü b.bin")


def test_writing_makes_no_objects_but_the_file(bucket):
    folder = Folder.at(f"{bucket}/plain")
    folder.write_bytes("a/b/c.bin", b"x" * 100)
    selector = fs.FileSelector(folder.path, recursive=True)
    sizes = {info.path: info.size for info in folder.filesystem.get_file_info(selector)}
    assert sizes.pop(f"{folder.path}/a/b/c.bin") == 100
    assert not any(sizes.values())


def test_a_directory_is_complete_when_its_marker_is_there(bucket):
    folder = Folder.at(f"{bucket}/done")
    with pytest.raises(IncompleteError, match="does not exist"):
        folder.card()
    folder.finish({"stage": "numbers"})
    assert folder.card("numbers") == {"stage": "numbers"}
    folder.reopen()
    with pytest.raises(IncompleteError, match="is not complete"):
        folder.card()
    assert not folder.exists(COMPLETE)


def test_a_stage_resumes_to_the_bytes_of_an_undisturbed_run(bucket, tmp_path):
    uri = f"{bucket}/numbers"
    run_numbers(tmp_path / "here", number_units(4))
    with pytest.raises(PipelineError, match="injected"):
        run_numbers(uri, number_units(4), fail_at="00000002")
    run_numbers(uri, number_units(4))
    here = {name: body for name, body in snapshot(tmp_path / "here").items() if body is not None}
    assert objects(uri) == here
    log = tmp_path / "log"
    log.touch()
    run_numbers(uri, number_units(4), log=str(log))
    assert log.read_text() == ""


@pytest.mark.parametrize("buffer_bytes", [1, 2**26], ids=["in pieces", "at once"])
def test_audio_is_read_by_uri(bucket, tmp_path, monkeypatch, buffer_bytes):
    monkeypatch.setattr(pipeline.audio.files, "REMOTE_BYTES", buffer_bytes)
    path = tmp_path / "x y.flac"
    soundfile.write(path, noise(1.0), RATE, subtype="PCM_16")
    Folder.at(f"{bucket}/audio").write_bytes("x y.flac", path.read_bytes())
    uri = f"{bucket}/audio/x%20y.flac"
    assert np.array_equal(read_audio(uri).waveform, read_audio(str(path)).waveform)
    part = read_audio(uri, 0.25, 0.5).waveform
    assert np.array_equal(part, read_audio(str(path), 0.25, 0.5).waveform)
    assert file_sha256(uri) == sha256(path.read_bytes())
    with pytest.raises(AudioError, match="no such file"):
        read_audio(f"{bucket}/audio/none.flac")


def check_shards(uri: str, expected: Path) -> None:
    """The shards at a URI are complete, and those of a local run byte by byte."""
    shards, local = Folder.at(uri), Folder.at(expected)
    assert shards.card("shard")["written"] == 3
    names = [name for name in local.files(recursive=True) if name.startswith(("texts", "index"))]
    assert len(names) >= 2
    for name in names:
        assert shards.read_bytes(name) == local.read_bytes(name), name


@pytest.fixture
def local(corpus, tmp_path) -> Path:
    """What `prepare` makes of the corpus on the disk."""
    return prepare_here(str(corpus), tmp_path / "local", write_codec(tmp_path / "codec"))


def prepare_here(source, output, codec):
    stages = ("ingest", "encode", "describe", "shard")
    values = {stage: {"resources": {"workers": 0}} for stage in stages}
    values["ingest"]["inputs"] = (source,)
    prepare(PrepareSettings.model_validate(values), Folder.at(output), codec)
    return output


def test_prepare_goes_from_bucket_to_bucket_and_again_changes_nothing(
    bucket, corpus, local, tmp_path
):
    source, output = upload(corpus, f"{bucket}/here/in"), f"{bucket}/here/out"
    prepare_here(source, output, str(tmp_path / "codec"))
    card = Folder.at(f"{output}/clips").card("ingest")
    assert (card["read"], card["rejected_by_reason"]) == (4, {"silent": 1})
    check_shards(f"{output}/train-shards", local / "train-shards")
    before = objects(output)
    prepare_here(source, output, str(tmp_path / "codec"))
    assert objects(output) == before


@pytest.mark.ray
@pytest.mark.slow
def test_workers_of_the_command_read_from_and_write_to_the_bucket(bucket, corpus):
    """A process of its own: its workers inherit the endpoint from the environment."""
    source, output = upload(corpus, f"{bucket}/there/in"), f"{bucket}/there/out"
    command = [sys.executable, "-m", "jobs.ingest", "--input", source, "--output", output]
    assert subprocess.run([*command, "--set=resources.workers=1"]).returncode == 0
    alone = IngestSettings(inputs=(source,), resources=Resources(workers=0))
    ingest(alone, Folder.at(f"{bucket}/there/alone"))
    assert len(objects(output)) > 4
    for folder in ("", ".work/plan"):
        assert objects(output + folder) == objects(f"{bucket}/there/alone{folder}")
