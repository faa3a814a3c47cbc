from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from pipeline.clip_tables import ClipTables
from pipeline.data.corpora.discover import discover
from pipeline.data.ingest import (
    DRIVER_UNITS,
    CorpusSettings,
    EvaluationSettings,
    IngestSettings,
    ingest,
)
from pipeline.data.schema import CLIPS, REJECTS, REMOVED, clip_from_columns
from pipeline.data.screening.checks import CheckSettings
from pipeline.data.screening.refusals import RefusalSettings
from pipeline.data.units.stage import Resources, run_stage
from pipeline.errors import IncompleteError, SettingsError, TooManyRejectsError
from pipeline.storage import Folder, sha256
from tests.factories.corpora import write_corpus, write_tone

HERE = Resources(workers=0)


def run(inputs: Path, output: Path, **settings: Any) -> dict[str, Any]:
    given = {"inputs": (str(inputs),), "resources": HERE, "max_reject_share": 1.0} | settings
    return ingest(IngestSettings(**given), Folder.at(output))


def rows(output: Path, kind: str = "parts") -> list[dict[str, Any]]:
    if kind == "parts":
        return ClipTables.of(Folder.at(output)).read_all().to_pylist()
    return [
        row for path in sorted((output / kind).iterdir()) for row in pq.read_table(path).to_pylist()
    ]


def contents(output: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(output)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(output.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def corpora(tmp_path: Path) -> Path:
    """Two corpora with four good clips, a silent one, a missing one and a stray table."""
    folder = tmp_path / "in"
    write_corpus(
        folder,
        {
            "speech/lj/metadata.csv": "a|hello\nb|you\nnone|lost\n",
            "speech/lj/wavs/a.wav": None,
            "speech/lj/wavs/b.wav": None,
            "sound/esc/esc.csv": "filename,category\nx.wav,dog\ny.wav,rain\nsilent.wav,night\n",
            "sound/esc/x.wav": None,
            "sound/esc/y.wav": None,
            "sound/esc/silent.wav": (write_tone(tmp_path / "s.wav", 0.0).read_bytes()),
            "stray.csv": "nothing\n",
        },
    )
    return folder


def test_what_is_read_is_written_or_rejected(corpora, tmp_path):
    card = run(corpora, tmp_path / "clips", unit_clips=3)
    assert (card["read"], card["written"], card["rejected"]) == (7, 4, 3)
    assert card["rejected_by_reason"] == {"empty_audio": 1, "missing_audio": 1, "unclaimed": 1}
    assert {row["clip_id"] for row in rows(tmp_path / "clips")} == {
        "speech-lj/a",
        "speech-lj/b",
        "sound-esc/x",
        "sound-esc/y",
    }
    assert len(rows(tmp_path / "clips", "rejects")) == 3
    assert {row["stage"] for row in rows(tmp_path / "clips", "rejects")} == {"ingest"}
    assert card["corpora"]["speech-lj"]["layout"] == "ljspeech"
    assert card["totals"]["clips/sound-esc"] == 2
    assert card["hours"]["by_modality"] == {
        "sound": pytest.approx(0.8 / 3600, abs=1e-6),
        "speech": pytest.approx(0.8 / 3600, abs=1e-6),
    }


def test_parts_have_the_schema_and_say_what_decoding_showed(corpora, tmp_path):
    run(corpora, tmp_path / "clips")
    clips = tmp_path / "clips"
    assert pq.read_schema(clips / "scan/parts/part-00000000.parquet").equals(CLIPS)
    assert pq.read_schema(clips / "removed/part-00000000.parquet").equals(REMOVED)
    assert pq.read_schema(clips / "rejects/part-00000000.parquet").equals(REJECTS)
    row = next(row for row in rows(clips) if row["clip_id"] == "sound-esc/x")
    assert (row["sample_rate"], row["num_channels"], row["num_samples"]) == (8_000, 1, 3_200)
    assert row["duration_s"] == 0.4
    assert row["split"] in ("train", "validation", "test")
    assert row["content_sha256"] == sha256((corpora / "sound/esc/x.wav").read_bytes())
    assert clip_from_columns(row).tags == ("dog",)


@pytest.mark.parametrize("settings", [CorpusSettings(path="x"), IngestSettings()])
def test_a_language_is_a_tag_as_rows_have_it(settings):
    kind, values = type(settings), settings.model_dump()
    assert kind(**values | {"language": " pt_BR"}).language == "pt-br"
    assert kind(**values | {"language": "zh-Hant"}).language == "zh-hant"
    assert kind(**values).language is None
    for wrong in ("Portuguese", "pt br", "e", "", "en-"):
        with pytest.raises(ValidationError, match=r"not a BCP 47 tag such as en, pt-br"):
            kind(**values | {"language": wrong})


def test_running_again_touches_nothing(corpora, tmp_path):
    card = run(corpora, tmp_path / "clips")
    before = contents(tmp_path / "clips"), contents(tmp_path / "clips.work")
    assert run(corpora, tmp_path / "clips") == card
    assert (contents(tmp_path / "clips"), contents(tmp_path / "clips.work")) == before


def test_the_output_does_not_depend_on_the_order_of_work(corpora, tmp_path):
    run(corpora, tmp_path / "one")
    run(corpora, tmp_path / "two")
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    assert {name: value[0] for name, value in one.items()} == {
        name: value[0] for name, value in two.items()
    }


def test_new_clips_cost_only_new_units(corpora, tmp_path):
    run(corpora, tmp_path / "clips", unit_clips=2)
    before = contents(tmp_path / "clips")
    write_tone(corpora / "sound/more/z.wav", seed=50)
    card = run(corpora, tmp_path / "clips", unit_clips=2)
    after = contents(tmp_path / "clips")
    assert card["read"] == 8
    parts = {name for name in before if name.startswith("scan/parts")}
    assert {name: after[name] for name in parts} == {name: before[name] for name in parts}
    assert len([name for name in after if name.startswith("scan/parts")]) == len(parts) + 1


def test_a_clip_that_vanished_is_gone(corpora, tmp_path):
    run(corpora, tmp_path / "clips", unit_clips=2)
    shutil.rmtree(corpora / "sound")
    card = run(corpora, tmp_path / "clips", unit_clips=2)
    assert card["written"] == 2
    assert {row["corpus"] for row in rows(tmp_path / "clips")} == {"speech-lj"}


def test_the_smallest_id_of_equal_audio_is_kept_in_any_container(tmp_path):
    folder = tmp_path / "sound"
    write_tone(folder / "b.wav", seed=1, subtype="PCM_16")
    write_tone(folder / "a/x.flac", seed=1)
    write_tone(folder / "c.wav", seed=1, subtype="PCM_24")
    write_tone(folder / "other.wav", seed=2)
    card = run(folder, tmp_path / "clips", unit_clips=1)
    kept = {row["clip_id"] for row in rows(tmp_path / "clips")}
    assert kept == {"sound/a/x.flac", "sound/other.wav"}
    assert card["rejected_by_reason"] == {"duplicate_audio": 2}
    assert all("sound/a/x.flac" in row["detail"] for row in rows(tmp_path / "clips", "rejects"))
    assert (
        run(folder, tmp_path / "all", refusals=RefusalSettings(keep_duplicates=True))["written"]
        == 4
    )


def test_a_later_duplicate_takes_the_place_of_an_earlier_one(tmp_path):
    folder = tmp_path / "sound"
    write_tone(folder / "b.wav", seed=1)
    run(folder, tmp_path / "clips")
    write_tone(folder / "a.wav", seed=1)
    run(folder, tmp_path / "clips")
    assert [row["clip_id"] for row in rows(tmp_path / "clips")] == ["sound/a.wav"]


def test_other_deduplication_rewrites_removals_and_no_rows(tmp_path):
    folder = tmp_path / "sound"
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_tone(folder / f"{name}.wav", seed=seed)
    card = run(folder, tmp_path / "clips", unit_clips=2)
    assert rows(tmp_path / "clips", "removed") == [
        {"clip_id": "sound/b.wav", "reason": "duplicate_audio", "twin": "sound/a.wav"}
    ]
    assert (card["written"], card["totals"]["clips/sound"], card["rejected"]) == (2, 2, 1)
    first = {name: payload for name, (payload, _) in contents(tmp_path / "clips").items()}
    before = contents(tmp_path / "clips/scan")
    other = RefusalSettings(keep_duplicates=True)
    card = run(folder, tmp_path / "clips", unit_clips=2, refusals=other)
    assert (card["written"], card["totals"]["clips/sound"], card["rejected"]) == (3, 3, 0)
    assert contents(tmp_path / "clips/scan") == before
    assert rows(tmp_path / "clips", "removed") == []
    assert not (tmp_path / "clips/parts").exists()
    run(folder, tmp_path / "clips", unit_clips=2)
    assert {name: payload for name, (payload, _) in contents(tmp_path / "clips").items()} == first


@pytest.mark.parametrize(("limit", "workers"), [(2, 0), (1, 5)])
def test_the_second_pass_over_many_units_is_for_the_workers(
    corpora, tmp_path, monkeypatch, limit, workers
):
    asked = []

    def here(folder, *, resources, **given):
        asked.append(resources.workers)
        return run_stage(folder, resources=HERE, **given)

    def discover_here(*given, uses_tasks):
        assert uses_tasks
        return discover(*given, uses_tasks=False)

    monkeypatch.setattr("pipeline.data.ingest.run_stage", here)
    monkeypatch.setattr("pipeline.data.scan.run_stage", here)
    monkeypatch.setattr("pipeline.data.ingest.DRIVER_UNITS", limit)
    monkeypatch.setattr("pipeline.data.ingest.discover", discover_here)
    run(corpora, tmp_path / "clips", unit_clips=4, resources=Resources(workers=5))
    assert asked == [5, workers]


@pytest.mark.ray
@pytest.mark.slow
def test_more_units_than_the_driver_takes_give_the_same_bytes_from_workers(tmp_path, ray_session):
    num_lost = DRIVER_UNITS
    lost = "".join(f'{{"file": "{n}.wav", "tags": ["lost"]}}\n' for n in range(num_lost))
    audio = {f"sound/fx/{name}.wav": None for name in ("a", "b", "a copy")}
    tags = "".join(f'{{"file": "{name}.wav", "tags": ["tone"]}}\n' for name in ("a", "b"))
    write_corpus(tmp_path / "in", audio | {"sound/fx/list.jsonl": tags + lost})
    inputs, here, there = (tmp_path / name for name in ("in", "here/clips", "there/clips"))
    card = run(inputs, here, unit_clips=1)
    assert card["units"] == num_lost + 3
    assert card["rejected_by_reason"] == {"missing_audio": num_lost, "unreferenced": 1}
    for place in ("clips.work", "clips/scan"):  # decoding is not what is tested
        shutil.copytree(here.parent / place, there.parent / place)
    shutil.copy(here / "_stage.json", there)
    run(inputs, there, unit_clips=1, resources=Resources(workers=2))
    assert {name: payload for name, (payload, _) in contents(there).items()} == {
        name: payload for name, (payload, _) in contents(here).items()
    }


def test_clips_whose_ingest_was_killed_after_its_scan_are_not_read(corpora, tmp_path, monkeypatch):
    run(corpora, tmp_path / "clips")
    write_tone(corpora / "sound/more/z.wav", seed=50)
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.data.ingest.find_removals", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(corpora, tmp_path / "clips")
    with pytest.raises(IncompleteError, match="run `audiocalm ingest` again"):
        rows(tmp_path / "clips")
    run(corpora, tmp_path / "clips")
    assert "sound-more/z.wav" in {row["clip_id"] for row in rows(tmp_path / "clips")}


def test_a_directory_of_something_else_is_refused_before_anything_is_decoded(corpora, tmp_path):
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips/thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds files that no stage wrote"):
        run(corpora, tmp_path / "clips")
    assert [path.name for path in (tmp_path / "clips").iterdir()] == ["thesis.txt"]


def test_clips_of_evaluation_sets_are_refused_wherever_the_sets_lie(tmp_path):
    bench = {"sound/heard.wav": None, "sound/alone.wav": None}
    write_corpus(tmp_path / "bench", bench)
    folder = tmp_path / "in/sound"
    write_tone(folder / "leak.flac", seed=0)
    write_tone(folder / "own.wav", seed=9)
    (entry,) = (EvaluationSettings(path=str(tmp_path / "bench"), name="esc"),)
    card = run(folder, tmp_path / "clips", evaluation_sets=(entry,))
    assert [row["clip_id"] for row in rows(tmp_path / "clips")] == ["sound/own.wav"]
    (refused,) = rows(tmp_path / "clips", "rejects")
    assert refused["reason"] == "evaluation_leak"
    assert "in the evaluation set esc: sound/heard.wav" in refused["detail"]
    assert (card["read"], "evaluation/esc" in card["inputs"]) == (2, True)
    before = contents(tmp_path / "clips"), contents(tmp_path / "clips.work")
    run(folder, tmp_path / "clips", evaluation_sets=(entry,))
    assert (contents(tmp_path / "clips"), contents(tmp_path / "clips.work")) == before

    run(tmp_path / "bench", tmp_path / "bench-clips")
    done = EvaluationSettings(path=str(tmp_path / "bench-clips"))
    run(folder, tmp_path / "again", evaluation_sets=(done,))
    assert [row["clip_id"] for row in rows(tmp_path / "again")] == ["sound/own.wav"]


def test_an_empty_evaluation_set_is_an_error(corpora, tmp_path):
    (tmp_path / "none").mkdir()
    entry = EvaluationSettings(path=str(tmp_path / "none"))
    with pytest.raises(SettingsError, match="evaluation set 'none' holds no audio"):
        run(corpora, tmp_path / "clips", evaluation_sets=(entry,))


def test_evaluation_sets_whose_paths_end_alike_need_names(tmp_path):
    paths = [str(tmp_path / name / "test") for name in ("one", "two")]
    for seed, path in enumerate(paths):
        write_tone(Path(path) / "a.wav", seed=seed)
        write_tone(tmp_path / f"in/sound/leak{seed}.wav", seed=seed)
    write_tone(tmp_path / "in/sound/own.wav", seed=9)
    entries = tuple(EvaluationSettings(path=path) for path in paths)
    with pytest.raises(SettingsError, match=r"'test': .*one/test and .*two/test; .* `name`"):
        run(tmp_path / "in", tmp_path / "clips", modality="sound", evaluation_sets=entries)
    assert not (tmp_path / "clips.work").exists()

    entries = tuple(EvaluationSettings(path=path, name=path[-8:-5]) for path in paths)
    run(tmp_path / "in", tmp_path / "clips", modality="sound", evaluation_sets=entries)
    assert [row["uri"][-7:] for row in rows(tmp_path / "clips")] == ["own.wav"]


def test_spans_of_one_file_are_no_duplicates(tmp_path):
    write_tone(tmp_path / "in/long.flac", 2.0)
    table = "file,caption,start_s,end_s\nlong.flac,one,0,0.53\nlong.flac,two,0.53,1.5\n"
    write_corpus(tmp_path / "in", {"t.csv": table + "long.flac,gone,1.5,9\n"})
    card = run(tmp_path / "in", tmp_path / "clips", modality="music")
    assert {row["captions"][0]: row["num_samples"] for row in rows(tmp_path / "clips")} == {
        "one": 4_240,
        "two": 7_760,
    }
    assert card["rejected_by_reason"] == {"span_outside_audio": 1}


def test_a_cut_file_is_kept_without_a_transcript_and_refused_with_one(tmp_path):
    payload = write_tone(tmp_path / "x.flac", 4.0).read_bytes()
    files = {
        "speech/lj/wavs/a.flac": payload[: len(payload) // 2],
        "speech/lj/metadata.csv": "a|hello\n",
        "sound/b.flac": payload[: len(payload) // 3],
    }
    card = run(write_corpus(tmp_path / "in", files), tmp_path / "clips")
    (row,) = rows(tmp_path / "clips")
    assert row["clip_id"] == "sound/b.flac"
    assert {note.partition(":")[0] for note in row["notes"]} == {"damaged", "truncated"}
    assert card["rejected_by_reason"] == {"truncated": 1}
    assert card["totals"]["noted/truncated"] == 1


def test_too_many_rejects_fail_and_leave_the_directory_incomplete(corpora, tmp_path):
    with pytest.raises(TooManyRejectsError, match=r"3 of 7 items rejected .* missing_audio 1"):
        run(corpora, tmp_path / "clips", max_reject_share=0.2)
    assert not Folder.at(tmp_path / "clips").is_complete
    run(corpora, tmp_path / "clips", max_reject_share=0.5)
    assert Folder.at(tmp_path / "clips").is_complete


def test_changed_limits_redo_the_scan_and_changed_resources_do_not(corpora, tmp_path):
    run(corpora, tmp_path / "clips")
    card = run(corpora, tmp_path / "clips", checks=CheckSettings(min_duration_s=1.0))
    assert card["rejected_by_reason"]["too_short"] == 4
    before = contents(tmp_path / "clips")
    run(
        corpora,
        tmp_path / "clips",
        checks=CheckSettings(min_duration_s=1.0),
        resources=Resources(workers=0, cpus=2),
    )
    assert contents(tmp_path / "clips") == before


def test_settings_of_one_corpus(corpora, tmp_path):
    entry = CorpusSettings(path=str(corpora / "speech/lj"), name="ann", language="en-gb")
    settings = IngestSettings(corpora=(entry,), resources=HERE)
    card = ingest(settings, Folder.at(tmp_path / "clips"))
    assert list(card["corpora"]) == ["ann"]
    assert {(row["clip_id"], row["language"]) for row in rows(tmp_path / "clips")} == {
        ("ann/a", "en-gb"),
        ("ann/b", "en-gb"),
    }


def test_nothing_to_read_is_an_error_with_the_remedy(tmp_path):
    with pytest.raises(SettingsError, match="--input"):
        ingest(IngestSettings(), Folder.at(tmp_path / "clips"))
    (tmp_path / "in").mkdir()
    with pytest.raises(SettingsError, match="no audio and no manifest"):
        run(tmp_path / "in", tmp_path / "clips")


def test_a_moved_corpus_is_said_in_the_card(tmp_path):
    table = "file,caption\n/old/root/wavs/a.wav,Rain.\n/old/root/wavs/b.wav,Wind.\n"
    files = {"wavs/a.wav": None, "wavs/b.wav": None, "metadata.csv": table}
    write_corpus(tmp_path / "sound", files)
    card = run(tmp_path / "sound", tmp_path / "clips")
    assert card["corpora"]["sound"]["moved_from"] == {"/old/root": 2}
    assert (card["written"], card["rejected"]) == (2, 0)
