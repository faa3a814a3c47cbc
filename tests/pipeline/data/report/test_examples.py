from __future__ import annotations

from pathlib import Path

from pipeline.data.rejects import Reason, reject
from pipeline.data.report.examples import rejects_of, texts_of
from pipeline.data.report.listening import Listening
from pipeline.data.report.stages import StageFolder, find_stages
from pipeline.data.units.commits import rejects_bytes
from pipeline.storage import Folder


def test_rejects_are_all_counted_and_shown_with_audio_where_there_is_some(prepared):
    stages = find_stages(Folder.at(prepared))
    found = {rejects.reason: rejects for rejects in rejects_of(stages, 2, Listening(2.0, 10**6))}
    assert {reason: rejects.count for reason, rejects in found.items()} == (
        stages["ingest"].card["rejected_by_reason"]
    )
    assert set(found) == {"silent", "duplicate_audio", "unreadable"}
    (silent,) = found["silent"].examples
    assert silent.audio.startswith("data:audio/mpeg")
    (broken,) = found["unreadable"].examples
    assert broken.audio == ""
    assert "cannot be played" in broken.silence


def test_texts_are_counted_and_examples_are_the_same_on_every_run(prepared):
    stages = find_stages(Folder.at(prepared))
    first, again = (
        texts_of(stages["describe"], stages["ingest"], 1, Listening(2.0, 10**6)) for _ in range(2)
    )
    assert first == again
    assert first.clips == stages["describe"].card["written"]
    assert 0 < first.distinct <= first.texts
    assert set(first.examples) == {"music", "sound", "speech"}
    assert all(len(found) == 1 for found in first.examples.values())
    assert first.examples["speech"][0].audio
    alone = texts_of(stages["describe"], None, 5, Listening(2.0, 10**6))
    assert [len(found) for found in alone.examples.values()] == [1, 2, 1]
    assert "no clips/" in alone.examples["music"][0].silence


def test_rejects_without_audio_and_deadly_files_are_not_opened(tmp_path: Path):
    (tmp_path / "deadly.wav").write_bytes(b"x")
    deadly = str(tmp_path / "deadly.wav")
    rows = [
        reject(Reason.WORKER_DIED, "died", corpus="c", uri=deadly, clip_id="c/a"),
        reject(Reason.MALFORMED, "bad row", corpus="c", uri="m.csv", line=3, field="file"),
        reject(Reason.MALFORMED, "bad row", corpus="", uri="m.csv", line=3, field="file"),
    ]
    folder = Folder.at(tmp_path / "clips")
    folder.write_bytes("rejects/part-0.parquet", rejects_bytes(rows))
    files = ["rejects/part-0.parquet"]
    stages = {"ingest": StageFolder("ingest", folder, False, {"read": 4}, files)}
    first, second = rejects_of(stages, 1, Listening(1.0, 10**6))
    assert (first.reason, first.count, first.share) == ("malformed", 2, 0.5)
    assert first.corpora == [("c", 1), ("", 1)]
    (shown,) = first.examples
    assert (shown.place, shown.audio, shown.silence) == ("m.csv, line 3, file", "", "")
    assert "killed" in second.examples[0].silence
