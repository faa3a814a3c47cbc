"""Whole runs over inputs as people have them: no file ends a job, and each is accounted for."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

import pipeline.audio.decoders
from pipeline.audio.ffmpeg import FfmpegDecoder
from pipeline.clip_tables import ClipTables
from pipeline.data.prepare import FOLDERS, PrepareSettings, prepare
from pipeline.data.report.write import DataReportSettings, write_data_report
from pipeline.storage import Folder
from pipeline.tracking import TrackingSettings
from tests.factories.audio_files import ffmpeg_bytes, tone, video_bytes
from tests.factories.clips import noise, write_codec, write_recordings

RATE = 16_000


def run(corpus: Path, out: Path, max_reject_share: float = 1.0) -> dict[str, dict]:
    values = {stage: {"resources": {"workers": 0}} for stage in ("encode", "describe", "shard")}
    values["ingest"] = {"resources": {"workers": 0}, "inputs": (str(corpus),)}
    for stage in values.values():
        stage["max_reject_share"] = max_reject_share
    settings = PrepareSettings.model_validate(values)
    cards = prepare(settings, Folder.at(out), write_codec(out.parent / "codec"))
    quiet = DataReportSettings(tracking=TrackingSettings(is_enabled=False))
    write_data_report(Folder.at(out), quiet)
    return cards


def rejected(out: Path, stage: str = "ingest") -> dict[str, tuple[str, str]]:
    parts = sorted((out / FOLDERS[stage] / "rejects").iterdir())
    rows = [row for part in parts for row in pq.read_table(part).to_pylist()]
    return {Path(row["uri"]).name: (row["reason"], row["detail"]) for row in rows}


def adts(seed: int, num_channels: int, rate: int = RATE) -> bytes:
    return ffmpeg_bytes(tone(rate, num_channels, rate, seed), rate, "adts")


@pytest.fixture
def corpus(tmp_path) -> Path:
    folder = tmp_path / "sound"
    write_recordings(tmp_path, {"sound/ok.wav": noise(1.0)})
    good = ffmpeg_bytes(tone(RATE))
    files = {
        "up.aac": adts(1, 1) + adts(2, 2),
        "down.aac": adts(3, 2) + adts(4, 1),
        "faster.aac": adts(5, 1) + adts(6, 1, 24_000),
        "unknown.m4a": good.replace(b"mp4a", b"ac-4").replace(b"esds", b"zzzz"),
        "dumb.mkv": video_bytes(with_audio=False),
        "cut.m4a": good[: len(good) // 2],
        "empty.mp4": b"",
        "junk.wav": b"junk",
    }
    for name, payload in files.items():
        (folder / name).write_bytes(payload)
    return folder


def test_no_compressed_file_ends_the_job_and_each_bad_one_is_named(corpus, tmp_path):
    (corpus / "dumb.mkv").rename(corpus / "dumb.mka")
    cards = run(corpus, tmp_path / "out")
    refused = rejected(tmp_path / "out")
    assert refused["unknown.m4a"] == ("unreadable", "the codec 'ac-4' is not supported")
    assert refused["dumb.mka"] == ("unreadable", "the file holds no audio stream")
    assert refused["empty.mp4"][0] == "empty_audio"
    assert set(refused) == {"unknown.m4a", "dumb.mka", "empty.mp4", "cut.m4a", "junk.wav"}
    assert cards["encode"]["written"] == cards["ingest"]["written"] == 4
    rows = ClipTables.of(Folder.at(tmp_path / "out" / "clips")).read_all().to_pylist()
    found = {Path(row["uri"]).name: (row["num_channels"], row["sample_rate"]) for row in rows}
    assert found["up.aac"] == found["faster.aac"] == (1, RATE)
    assert found["down.aac"] == (2, RATE)
    noted = {Path(row["uri"]).name for row in rows if "format_change" in str(row["notes"])}
    assert noted == {"up.aac", "down.aac", "faster.aac"}


def test_a_change_of_format_does_not_cost_a_transcript(tmp_path):
    folder = tmp_path / "speech"
    folder.mkdir()
    (folder / "a.aac").write_bytes(adts(1, 1) + adts(2, 2))
    (folder / "a.txt").write_text("hello there")
    cards = run(folder, tmp_path / "out")
    assert (cards["ingest"]["written"], cards["ingest"]["rejected"]) == (1, 0)


@pytest.mark.parametrize("error", [MemoryError("header"), AttributeError("x"), AssertionError()])
def test_a_decoder_that_fails_in_a_later_stage_costs_one_clip(corpus, tmp_path, monkeypatch, error):
    for name in ("unknown.m4a", "dumb.mkv", "cut.m4a", "empty.mp4", "junk.wav", "faster.aac"):
        (corpus / name).unlink()
    calls = []

    class Failing(FfmpegDecoder):
        def _decoded(self):
            calls.append(1)
            for number, block in enumerate(super()._decoded()):
                if len(calls) > 2 and number:  # both files were ingested
                    raise error
                yield block

    monkeypatch.setattr(pipeline.audio.decoders, "FfmpegDecoder", Failing)
    cards = run(corpus, tmp_path / "out")
    refused = rejected(tmp_path / "out", "encode")
    assert set(refused) == {"up.aac", "down.aac"}
    assert {reason for reason, _ in refused.values()} == {"unreadable"}
    assert type(error).__name__ in refused["up.aac"][1]
    assert cards["encode"]["written"] == 1


def test_companions_of_a_mac_neither_fail_the_job_nor_go_unsaid(tmp_path):
    waves = {f"sound/{n}.wav": noise(1.0, n) for n in range(3)}
    write_recordings(tmp_path, waves)
    for n in range(3):
        (tmp_path / "sound" / f"._{n}.wav").write_bytes(b"\0\5\x16\7" + bytes(200))
    (tmp_path / "sound" / "bad.wav").write_bytes(b"junk")
    (tmp_path / "sound" / "notes.rtf").write_bytes(b"x")
    cards = run(tmp_path / "sound", tmp_path / "out", max_reject_share=0.5)
    assert (cards["ingest"]["written"], cards["ingest"]["rejected"]) == (3, 1)
    assert cards["ingest"]["ignored_files"] == {"._*": 3, ".rtf": 1}
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<h2>Ignored files" in page
    assert '<td class="name">._*</td><td class="n">3</td>' in page
    assert '<td class="name">.rtf</td><td class="n">1</td>' in page
