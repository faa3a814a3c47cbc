from __future__ import annotations

import random
from dataclasses import replace

import pytest

from model.text import Prompt, render
from pipeline.data.describe import DescribeSettings, describe
from pipeline.data.encode import EncodeResources, EncodeSettings, encode
from pipeline.data.schema import ClipRow
from pipeline.data.units.stage import Resources
from pipeline.errors import PipelineError
from pipeline.storage import Folder, read_tables
from tests.factories.clip_tables import write_clip_tables
from tests.factories.clips import noise, small_corpus, write_clips, write_codec
from tests.factories.prompts import transcript_of
from tests.factories.stage import snapshot
from tests.factories.transcripts import nasty_transcript

HERE = DescribeSettings(resources=Resources(workers=0))
ENCODE = EncodeSettings(resources=EncodeResources(workers=0), max_reject_share=1.0)


def rows_of(folder: Folder, part: str = "parts") -> dict[str, dict]:
    names = [f"{part}/{name}" for name in folder.child(part).files(".parquet")]
    return {row["clip_id"]: row for row in read_tables(folder, names).to_pylist()}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("describe")
    broken = root / "broken.wav"
    broken.write_bytes(b"no audio")
    row = ClipRow(clip_id="bad/0", corpus="bad", uri=str(broken), modality="sound")
    clips = write_clips(root / "clips", [*small_corpus(), (row, noise(1.0))])
    encode(clips, Folder.at(root / "latents"), ENCODE, write_codec(root / "codec"))
    describe(clips, Folder.at(root / "latents"), Folder.at(root / "descriptions"), HERE)
    return root


def test_every_clip_with_latents_has_several_texts(corpus):
    rows = rows_of(Folder.at(corpus / "descriptions"))
    assert len(rows) == 10
    for row in rows.values():
        assert len(set(row["descriptions"])) == 4
        assert row["recipe_digest"]
    assert rows["tune/1"]["source"] == "caption"
    assert rows["tune/0"]["source"] == "template"


def test_transcript_is_kept_to_the_letter_and_out_of_the_descriptions(corpus):
    rows = rows_of(Folder.at(corpus / "descriptions"))
    assert rows["talk/2"]["transcript"] == 'Line 2:\n"Says: quoted"'
    for row in rows.values():
        assert not any("quoted" in text or "La la" in text for text in row["descriptions"])


def test_clip_without_latents_is_a_reject_and_counts_add_up(corpus):
    folder = Folder.at(corpus / "descriptions")
    card = folder.card()
    assert (card["read"], card["written"], card["rejected"]) == (11, 10, 1)
    assert rows_of(folder, "rejects")["bad/0"]["reason"] == "no_latents"


def test_texts_depend_on_clip_and_recipe_only(corpus, tmp_path):
    clips, latents = Folder.at(corpus / "clips"), Folder.at(corpus / "latents")
    describe(clips, latents, Folder.at(tmp_path / "again"), HERE)
    assert snapshot(tmp_path / "again") == snapshot(corpus / "descriptions")
    # The same clips in other parts have the same texts.
    rows = [(replace(row, uri=str(_uri(row, corpus))), wave) for row, wave in small_corpus()]
    moved = write_clips(tmp_path / "clips", rows[::-1], rows_per_part=3)
    encode(moved, Folder.at(tmp_path / "latents"), ENCODE, str(corpus / "codec"))
    describe(moved, Folder.at(tmp_path / "latents"), Folder.at(tmp_path / "moved"), HERE)
    expected = rows_of(Folder.at(corpus / "descriptions"))
    for clip_id, row in rows_of(Folder.at(tmp_path / "moved")).items():
        assert row["descriptions"] == expected[clip_id]["descriptions"]


def _uri(row: ClipRow, corpus):
    return corpus / "audio" / f"{row.clip_id.replace('/', '-')}.wav"


def test_new_settings_redo_texts_without_audio(corpus, tmp_path, monkeypatch):
    def no_audio(*_args, **_given):
        raise AssertionError("describe must not read audio")

    monkeypatch.setattr("pipeline.data.encode.read_audio", no_audio)
    monkeypatch.setattr("pipeline.audio.files.open_audio", no_audio)
    clips, latents, out = (Folder.at(corpus / n) for n in ("clips", "latents", "descriptions"))
    other = Folder.at(tmp_path / "out")
    describe(clips, latents, other, HERE)
    more = HERE.model_copy(update={"texts_per_clip": 6})
    describe(clips, latents, other, more)
    rows = rows_of(other)
    assert {len(row["descriptions"]) for row in rows.values()} == {6}
    seeded = HERE.model_copy(update={"seed": 1})
    describe(clips, latents, other, seeded)
    before, after = rows_of(out), rows_of(other)
    assert any(before[k]["descriptions"] != after[k]["descriptions"] for k in before)


def test_sound_without_labels_and_measurements_is_a_reject(tmp_path):
    row = ClipRow(clip_id="n/0", corpus="n", uri="", modality="sound")
    clips = write_clips(tmp_path / "clips", [(row, noise(1.0))])
    blind = ENCODE.model_copy(update={"measures_attributes": False})
    encode(clips, Folder.at(tmp_path / "latents"), blind, write_codec(tmp_path / "codec"))
    tolerant = HERE.model_copy(update={"max_reject_share": 1.0})
    out = Folder.at(tmp_path / "out")
    describe(clips, Folder.at(tmp_path / "latents"), out, tolerant)
    assert rows_of(out, "rejects")["n/0"]["reason"] == "no_description"


def test_latents_of_other_clips_are_refused(corpus, tmp_path):
    other = write_clips(tmp_path / "clips", small_corpus()[:2])
    with pytest.raises(PipelineError, match="made of other clips"):
        describe(other, Folder.at(corpus / "latents"), Folder.at(tmp_path / "out"), HERE)


def test_any_transcript_passes_the_stage_to_the_letter(tmp_path):
    rng = random.Random(0)
    spoken = {f"n/{number}": nasty_transcript(rng) for number in range(60)}
    rows = [
        (
            ClipRow(clip_id=clip_id, corpus="n", uri="", modality="speech", transcript=text),
            {"duration_s": 2.0, "level_dbfs": -20.0, "active_s": 1.5},
        )
        for clip_id, text in spoken.items()
    ]
    clips, latents = write_clip_tables(tmp_path, [rows])
    describe(clips, latents, Folder.at(tmp_path / "out"), HERE)
    found = rows_of(Folder.at(tmp_path / "out"))
    assert {clip_id: row["transcript"] for clip_id, row in found.items()} == spoken
    for row in found.values():
        for description in row["descriptions"]:
            text = render(Prompt(description=description, transcript=row["transcript"]))
            assert transcript_of(text) == row["transcript"]


def test_card_says_how_varied_the_texts_are(corpus):
    variety = Folder.at(corpus / "descriptions").card()["variety"]
    assert sorted(variety) == ["all", "music", "sound", "speech"]
    assert variety["all"]["texts"] == 40
    assert 0 < variety["all"]["distinct_forms"] <= variety["all"]["distinct_texts"] <= 40
    assert 0 < variety["all"]["type_token_ratio"] < 1
