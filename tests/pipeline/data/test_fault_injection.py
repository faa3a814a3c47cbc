"""`prepare` among faults of storage and GPU gives the bytes of an undisturbed run."""

from __future__ import annotations

import builtins
import errno
import io
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
from fsspec.implementations.local import LocalFileSystem
from tenacity import wait_none

from model.codec.protocol import Posterior
from model.codec.registry import load_codec
from pipeline import faults
from pipeline.audio import files as audio_io
from pipeline.audio.files import AudioError, file_sha256, read_audio
from pipeline.data import encode
from pipeline.data.encode import EncodeResources, EncodeSettings, EncodeWorker
from pipeline.data.prepare import FOLDERS, PrepareSettings, prepare
from pipeline.data.units import work
from pipeline.data.units.stage import Unit
from pipeline.errors import MachineError, OutOfMemoryError, UnitsFailedError
from pipeline.storage import Folder
from tests.factories.clips import (
    noise,
    small_corpus,
    tone,
    voice,
    write_clips,
    write_codec,
    write_recordings,
)
from tests.factories.s3 import Outage, objects, s3_bucket, upload
from tests.factories.stage import snapshot


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "BACKOFF", wait_none())
    monkeypatch.setattr(work, "BETWEEN_ROUNDS", wait_none())


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    root = tmp_path / "corpora"
    sounds = {f"sound/birds/{number}.wav": noise(0.6, number) for number in range(3)}
    rest = {"music/tones/a.flac": tone(0.7, 220), "speech/talk/one.wav": voice(0.8, 120)}
    silent = {"sound/birds/still.wav": np.zeros(4_000, np.float32)}
    write_recordings(root, sounds | rest | silent)
    return root


def prepare_here(source: object, output: object, codec: str, **ingest: Any) -> None:
    values: dict[str, Any] = {stage: {"resources": {"workers": 0}} for stage in FOLDERS}
    values["ingest"] |= {"inputs": (str(source),), "unit_clips": 2, **ingest}
    prepare(PrepareSettings.model_validate(values), Folder.at(str(output)), codec)


@pytest.mark.nightly
def test_an_object_store_that_answers_503_now_and_then(corpus: Path, tmp_path: Path) -> None:
    codec, outage = write_codec(tmp_path / "codec"), Outage()
    with s3_bucket("outage", outage) as bucket:
        source = upload(corpus, f"{bucket}/in")
        prepare_here(source, f"{bucket}/calm", codec)
        outage.share = 0.04
        prepare_here(source, f"{bucket}/sick", codec)
        outage.share = 0.0
        calm, sick = objects(f"{bucket}/calm"), objects(f"{bucket}/sick")
    assert outage.num_failed > 5
    assert sick.keys() == calm.keys()
    assert [name for name in calm if sick[name] != calm[name]] == []


class _Sick(LocalFileSystem):
    """Local files; a call in so many fails with EIO, reads in the midst of a file too."""

    protocol = "eio"
    every = 0
    calls = itertools.count(1)
    num_failed = 0

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + str(path).removeprefix("eio://").strip("/")

    @classmethod
    def fail(cls) -> None:
        if cls.every and next(cls.calls) % cls.every == 0:
            cls.num_failed += 1
            raise OSError(errno.EIO, "Input/output error")

    def _open(self, path: str, mode: str = "rb", **rest: Any) -> Any:
        self.fail()
        opened = super()._open(path, mode, **rest)
        if "r" not in mode:
            return opened
        with opened:
            return _SickFile(opened.read())

    def ls(self, path: str, detail: bool = False, **rest: Any) -> Any:
        self.fail()
        return super().ls(path, detail, **rest)

    def mv(self, path1: str, path2: str, **rest: Any) -> None:
        self.fail()
        super().mv(path1, path2, **rest)


class _SickFile(io.BytesIO):
    def read(self, size: int | None = -1) -> bytes:
        _Sick.fail()
        return super().read(size)


@pytest.mark.slow
def test_a_file_system_that_raises_eio_now_and_then(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsspec.register_implementation("eio", _Sick, clobber=True)
    codec = write_codec(tmp_path / "codec")
    monkeypatch.setattr(_Sick, "every", 0)
    prepare_here(f"eio://{corpus}", f"eio://{tmp_path}/calm", codec)
    monkeypatch.setattr(_Sick, "every", 9)
    prepare_here(f"eio://{corpus}", f"eio://{tmp_path}/sick", codec)
    assert _Sick.num_failed > 20
    assert snapshot(tmp_path / "sick") == snapshot(tmp_path / "calm")


class _UnsteadyCodec:
    """The tiny codec, whose calls fail as planned."""

    def __init__(self, codec: Any, plan: list[Exception | None]) -> None:
        self._codec, self._plan = codec, plan

    def __getattr__(self, name: str) -> Any:
        return getattr(self._codec, name)

    def encode(self, waveform: Any, num_samples: Any = None) -> Posterior:
        error = self._plan.pop(0) if self._plan and num_samples is not None else None
        if error is not None:
            raise error
        posterior: Posterior = self._codec.encode(waveform, num_samples)
        return posterior


OOM = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
BROKEN = torch.AcceleratorError("CUDA error: an illegal memory access was encountered")


@pytest.mark.slow
@pytest.mark.parametrize("plan", [[OOM], [BROKEN], [None, BROKEN]], ids=["memory", "gpu", "later"])
def test_a_codec_that_fails_on_its_device_once(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plan: list[Exception | None]
) -> None:
    codec = write_codec(tmp_path / "codec")
    prepare_here(corpus, tmp_path / "calm", codec)
    left = list(plan)
    monkeypatch.setattr(encode, "load_codec", lambda at: _UnsteadyCodec(load_codec(at), left))
    prepare_here(corpus, tmp_path / "sick", codec)
    assert left == []
    assert snapshot(tmp_path / "sick") == snapshot(tmp_path / "calm")


@pytest.fixture
def clips(tmp_path: Path) -> Iterator[Folder]:
    return write_clips(tmp_path / "clips", small_corpus(), rows_per_part=10)


def encoded(
    clips: Folder, codec: str, monkeypatch: pytest.MonkeyPatch, plan: list[Exception | None]
) -> Any:
    unsteady = _UnsteadyCodec(load_codec(codec), plan)
    monkeypatch.setattr(encode, "load_codec", lambda _: unsteady)
    worker = EncodeWorker(clips, codec, EncodeSettings(resources=EncodeResources(workers=0)))
    return worker.process(Unit("00000000", "d", {}))


def test_a_batch_too_large_for_the_memory_is_encoded_in_halves(
    clips: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = encoded(clips, write_codec(tmp_path / "codec"), monkeypatch, [OOM, OOM])
    assert (output.written, output.rejects) == (10, [])


def test_a_clip_too_large_for_the_memory_fails_its_unit_by_name_and_is_no_reject(
    clips: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        OutOfMemoryError, match=r"clip \w+/\d.*CUDA out of memory.*s alone\); use a"
    ):
        encoded(clips, write_codec(tmp_path / "codec"), monkeypatch, [OOM] * 99)


def test_a_clip_is_rejected_only_if_it_fails_alone_and_again(
    clips: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec, bad = write_codec(tmp_path / "codec"), RuntimeError("bad shape")
    assert encoded(clips, codec, monkeypatch, [bad]).rejects == []
    (reject,) = encoded(clips, codec, monkeypatch, [bad, bad]).rejects
    assert reject.reason == "encoder_failed"


def test_a_speaker_encoder_that_runs_out_of_memory_is_asked_again(
    clips: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = EncodeWorker(
        clips,
        write_codec(tmp_path / "codec"),
        EncodeSettings(resources=EncodeResources(workers=0)),
    )
    whole, plan = worker._speakers.embed, [OOM]

    def embed(*given: Any) -> Any:
        if plan:
            raise plan.pop()
        return whole(*given)

    monkeypatch.setattr(worker._speakers, "embed", embed)
    output = worker.process(Unit("00000000", "d", {}))
    assert (output.written, plan) == (10, [])


class _SickPlainFile(io.FileIO):
    """An ordinary file whose reads fail as planned, None being a read that works."""

    plan: list[Exception | None]

    def read(self, size: int | None = -1) -> bytes:  # type: ignore[override]
        error = self.plan.pop(0) if self.plan else None
        if error is not None:
            raise error
        return super().read(-1 if size is None else size) or b""


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch) -> list[Exception | None]:
    """What becomes of the next reads of plain files."""
    planned: list[Exception | None] = []
    whole = builtins.open

    def opened(path: Any, mode: str = "r", buffering: int = -1, **rest: Any) -> Any:
        if mode != "rb" or buffering != 0:
            return whole(path, mode, buffering, **rest)
        file = _SickPlainFile(path)
        file.plan = planned
        return file

    monkeypatch.setattr(audio_io, "open", opened, raising=False)
    return planned


EIO = OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_a_local_file_is_read_whole_in_spite_of_errors(
    tmp_path: Path, plan: list[Exception | None], name: str
) -> None:
    write_recordings(tmp_path, {name: noise(1.0)})
    calm = read_audio(str(tmp_path / name))
    digest = file_sha256(str(tmp_path / name))
    plan[:] = [EIO, OSError(errno.ESTALE, "Stale file handle"), None, EIO]
    sick = read_audio(str(tmp_path / name))
    assert np.array_equal(sick.waveform, calm.waveform)
    assert sick.warnings == calm.warnings == ()
    plan[:] = [None, EIO, EIO]
    assert file_sha256(str(tmp_path / name)) == digest


@pytest.mark.parametrize("num_good", [0, 1])
@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_a_local_file_that_cannot_be_read_is_no_damaged_one(
    tmp_path: Path, plan: list[Exception | None], name: str, num_good: int
) -> None:
    write_recordings(tmp_path, {name: noise(80.0)})
    plan[:] = [None] * num_good + [EIO] * 99
    with pytest.raises(MachineError, match=rf"read .*{name}: .*Input/output error"):
        read_audio(str(tmp_path / name))


def test_a_missing_file_is_distinguished_from_a_lost_mount(tmp_path: Path) -> None:
    write_recordings(tmp_path, {"mount/a.wav": noise(0.1), "mount/b.wav": noise(0.1)})
    (tmp_path / "mount/a.wav").unlink()
    with pytest.raises(AudioError, match="no such file"):
        read_audio(str(tmp_path / "mount/a.wav"))
    (tmp_path / "mount/b.wav").unlink()
    with pytest.raises(MachineError, match="its mount may be lost"):
        read_audio(str(tmp_path / "mount/b.wav"))
    (tmp_path / "mount").rmdir()
    with pytest.raises(MachineError, match="its mount may be lost"):
        read_audio(str(tmp_path / "mount/b.wav"))


@pytest.mark.slow
def test_what_an_outage_rejected_is_processed_again_on_request(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As directories of earlier versions hold it: an error of the disk made a reject."""
    codec = write_codec(tmp_path / "codec")
    prepare_here(corpus, tmp_path / "calm", codec)
    with monkeypatch.context() as earlier:
        earlier.setattr(faults, "is_transient", lambda _: False)
        earlier.setattr(audio_io, "_opened", _refuse_one("0.wav"))
        prepare_here(corpus, tmp_path / "out", codec)
    card = Folder.at(tmp_path / "out/clips").card()
    assert card["rejected_by_reason"] == {"silent": 1, "unreadable": 1}
    prepare_here(corpus, tmp_path / "out", codec)
    assert Folder.at(tmp_path / "out/clips").card() == card, "it stays rejected unless asked for"
    resources = {"workers": 0, "retry_rejects": ("unreadable",)}
    prepare_here(corpus, tmp_path / "out", codec, resources=resources)
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "calm")


def _refuse_one(name: str) -> Any:
    whole = audio_io._opened

    def opened(uri: str) -> Any:
        if uri.endswith(name):
            raise OSError(errno.EIO, "Input/output error")
        return whole(uri)

    return opened


def test_an_outage_that_lasts_fails_the_job_and_rejects_nothing(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = write_codec(tmp_path / "codec")
    whole = audio_io._is_there

    def fail(path: str) -> bool:
        if path.endswith("0.wav"):
            raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")
        return whole(path)

    with monkeypatch.context() as outage:
        outage.setattr(audio_io, "_is_there", fail)
        with pytest.raises(UnitsFailedError) as caught:
            prepare_here(corpus, tmp_path / "out", codec)
    assert "scan: 1 of 3 units failed" in str(caught.value)
    assert "0.wav: [Errno 107] Transport endpoint is not connected" in str(caught.value)
    prepare_here(corpus, tmp_path / "out", codec)
    prepare_here(corpus, tmp_path / "calm", codec)
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "calm")
