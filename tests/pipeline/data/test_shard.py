from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from model.text import Prompt, render
from pipeline.data.describe import DescribeSettings, describe
from pipeline.data.encode import EncodeResources, EncodeSettings, encode
from pipeline.data.schema import INDEX, ClipRow
from pipeline.data.shard import ShardSettings, ShardWorker, shard
from pipeline.data.shards import read_npy
from pipeline.data.units.stage import Resources
from pipeline.errors import IncompleteError, PipelineError
from pipeline.storage import Folder, read_tables
from pipeline.training.shards import TrainShards
from tests.factories.clips import noise, small_corpus, write_clips, write_codec
from tests.factories.prompts import transcript_of
from tests.factories.stage import snapshot

R = Resources(workers=0)
HERE = ShardSettings(resources=R, parts_per_unit=2)
INPUTS = ("clips", "latents", "descriptions")


def make_inputs(root, rows, rows_per_part: int = 4) -> tuple[Folder, Folder, Folder]:
    clips = write_clips(root / "clips", rows, rows_per_part)
    latents, descriptions = Folder.at(root / "latents"), Folder.at(root / "descriptions")
    codec = root / "codec"
    settings = EncodeSettings(resources=EncodeResources(workers=0), max_reject_share=1.0)
    encode(clips, latents, settings, str(codec) if codec.exists() else write_codec(codec))
    describe(clips, latents, descriptions, DescribeSettings(resources=R))
    return clips, latents, descriptions


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("shard")
    broken = root / "broken.wav"
    broken.write_bytes(b"no audio")
    row = ClipRow(clip_id="bad/0", corpus="bad", uri=str(broken), modality="sound")
    inputs = make_inputs(root, [*small_corpus(), (row, noise(1.0))])
    shard(*inputs, Folder.at(root / "train-shards"), HERE)
    return root


def index_of(folder: Folder) -> list[dict]:
    names = [f"index/{name}" for name in folder.child("index").files(".parquet")]
    table = read_tables(folder, names)
    assert table.schema == INDEX
    return table.to_pylist()


def text_of(shards: Folder, row: dict) -> dict:
    name = f"texts/{row['texts']}.jsonl"
    return json.loads(shards.read_range(name, row["json_offset"], row["json_size"]))


def latents_of(latents: Folder, row: dict) -> tuple[np.ndarray, np.ndarray]:
    tar = f"shards/{row['shard']}.tar"
    mean, log_std = (
        read_npy(latents.read_range(tar, row[f"{n}_offset"], row[f"{n}_size"]), n)
        for n in ("mean", "log_std")
    )
    return mean, log_std


def test_index_leads_to_the_latents_and_texts_of_the_clip(corpus):
    shards, latents = Folder.at(corpus / "train-shards"), Folder.at(corpus / "latents")
    names = [f"parts/{name}" for name in latents.child("parts").files()]
    source = {row["clip_id"]: row for row in read_tables(latents, names).to_pylist()}
    rows = index_of(shards)
    assert len(rows) == 10
    for row in rows:
        origin = source[row["clip_id"]]
        assert {name: row[name] for name in origin if name in row} == {
            name: origin[name] for name in origin if name in row
        }
        facts = text_of(shards, row)
        assert facts["clip_id"] == row["clip_id"]
        assert facts["modality"] == row["modality"]
        assert row["has_transcript"] == (facts["transcript"] is not None)
        longest = max(
            len(render(Prompt(
                description=text, transcript=facts["transcript"], language=facts["language"],
                duration_s=facts["duration_s"], is_singing=facts["is_singing"],
            )).encode())
            for text in facts["descriptions"]
        )  # fmt: skip
        assert row["text_bytes"] == longest


def test_transcripts_survive_from_clip_to_prompt(corpus):
    shards = Folder.at(corpus / "train-shards")
    (row,) = [row for row in index_of(shards) if row["clip_id"] == "talk/1"]
    facts = text_of(shards, row)
    prompt = Prompt(description=facts["descriptions"][0], transcript=facts["transcript"])
    assert transcript_of(render(prompt)) == 'Line 1:\n"Says: quoted"'


def test_no_latents_are_copied(corpus):
    names = Folder.at(corpus / "train-shards").files(recursive=True)
    kinds = {name.partition("/")[0] for name in names if "/" in name}
    assert kinds == {"index", "texts", "rejects", "_commit_log"}


def test_card_counts_the_clips_of_each_split(corpus):
    folder = Folder.at(corpus / "train-shards")
    counts = Counter(row["split"] for row in index_of(folder))
    assert folder.card()["splits"] == dict(counts)
    assert counts.keys() == {"train", "validation"}


def test_statistics_are_of_the_train_split_in_sampled_latents(corpus):
    folder, latents = Folder.at(corpus / "train-shards"), Folder.at(corpus / "latents")
    per_modality: dict[str, list] = {}
    for row in index_of(folder):
        if row["split"] != "train":
            continue
        mean, log_std = (array.astype(float) for array in latents_of(latents, row))
        per_modality.setdefault(row["modality"], []).append((mean, np.exp(2 * log_std)))
    firsts, seconds = [], []
    for clips in per_modality.values():
        means = np.concatenate([mean for mean, _ in clips])
        variances = np.concatenate([variance for _, variance in clips])
        firsts.append(means.mean(axis=0))
        seconds.append((means**2 + variances).mean(axis=0))
    mean = np.mean(firsts, axis=0)
    std = np.sqrt(np.mean(seconds, axis=0) - mean**2)
    found = folder.card()["latent_stats"]
    np.testing.assert_allclose(found["mean"], mean, rtol=1e-9)
    np.testing.assert_allclose(found["std"], std, rtol=1e-9)
    frames = {m: sum(len(c[0]) for c in clips) for m, clips in per_modality.items()}
    assert found["frames"] == frames


def test_card_carries_codec_and_silence_of_the_latents(corpus):
    card, latents = Folder.at(corpus / "train-shards").card(), Folder.at(corpus / "latents").card()
    assert card["codec"] == latents["codec"]
    assert card["silence"] == latents["silence"]


def test_clip_without_latents_is_a_reject_with_its_reason(corpus):
    folder = Folder.at(corpus / "train-shards")
    card = folder.card()
    assert (card["read"], card["written"], card["rejected"]) == (11, 10, 1)
    assert card["rejected_by_reason"] == {"no_latents": 1}


def test_second_run_gives_the_same_bytes_elsewhere_and_does_nothing_here(corpus, monkeypatch):
    inputs = [Folder.at(corpus / name) for name in INPUTS]
    again = Folder.at(corpus / "again")
    shard(*inputs, again, HERE)
    assert snapshot(corpus / "again") == snapshot(corpus / "train-shards")
    monkeypatch.setattr(ShardWorker, "process", None)
    shard(*inputs, again, HERE)


def test_training_reads_latents_and_texts_through_the_index(corpus):
    shards, latents = TrainShards(Folder.at(corpus / "train-shards")), Folder.at(corpus / "latents")
    assert len(shards) == 9
    for number in range(len(shards)):
        row = shards.row(number)
        mean, log_std = latents_of(latents, row)
        found = shards.latents(row)
        np.testing.assert_array_equal(found.mean, mean.astype(np.float32))
        np.testing.assert_array_equal(found.log_std, log_std.astype(np.float32))
        assert shards.facts(row) == text_of(shards.folder, row)


def test_directories_that_are_moved_together_stay_readable(corpus, tmp_path):
    for name in ("latents", "train-shards"):
        shutil.copytree(corpus / name, tmp_path / "moved" / name)
    shards = TrainShards(Folder.at(tmp_path / "moved" / "train-shards"))
    assert shards.latents(shards.row(0)).mean.shape[1] == shards.latent_dim
    shutil.rmtree(tmp_path / "moved" / "latents")
    with pytest.raises(IncompleteError, match="move both directories together"):
        TrainShards(Folder.at(tmp_path / "moved" / "train-shards"))


def test_latents_that_were_written_again_are_refused(corpus, tmp_path):
    for name in ("latents", "train-shards"):
        shutil.copytree(corpus / name, tmp_path / name)
    latents = Folder.at(tmp_path / "latents")
    latents.finish(latents.card() | {"changed": True})
    with pytest.raises(IncompleteError, match="written again after"):
        TrainShards(Folder.at(tmp_path / "train-shards"))


def test_new_words_read_and_write_no_latents(corpus, tmp_path, monkeypatch):
    clips, latents = Folder.at(corpus / "clips"), Folder.at(corpus / "latents")
    descriptions, out = Folder.at(tmp_path / "descriptions"), Folder.at(tmp_path / "out")
    describe(clips, latents, descriptions, DescribeSettings(resources=R))
    before = shard(clips, latents, descriptions, out, HERE)
    digests = out.file_digests()
    describe(clips, latents, descriptions, DescribeSettings(resources=R, seed=7))
    monkeypatch.setattr(ShardWorker, "_sums", None)
    monkeypatch.setattr(Folder, "read_range", None)
    after = shard(clips, latents, descriptions, out, HERE)
    assert after["latent_stats"] == before["latent_stats"]
    changed = {name for name, digest in out.file_digests().items() if digest != digests[name]}
    assert {name.partition("/")[0] for name in changed} == {"texts", "index"}


def test_new_clips_redo_only_the_units_of_their_parts(tmp_path):
    rows = [
        (
            ClipRow(clip_id=f"n/{i}", corpus="n", uri="", modality="sound", tags=("rain",)),
            noise(0.5, i),
        )
        for i in range(7)
    ]
    out = Folder.at(tmp_path / "train-shards")
    inputs = make_inputs(tmp_path, rows[:4], rows_per_part=1)
    first = shard(*inputs, out, HERE)
    digests = out.file_digests()
    shutil.rmtree(tmp_path / "clips")
    inputs = make_inputs(tmp_path, rows, rows_per_part=1)
    second = shard(*inputs, out, HERE)
    assert (first["units"], second["units"], second["written"]) == (4, 8, 7)
    assert digests.items() <= out.file_digests().items()


def test_inputs_that_do_not_belong_together_are_refused(corpus, tmp_path):
    clips, latents, descriptions = (Folder.at(corpus / name) for name in INPUTS)
    rows = [(replace(row), wave) for row, wave in small_corpus()[:2]]
    other = write_clips(tmp_path / "clips", rows)
    with pytest.raises(PipelineError, match="made of other clips"):
        shard(other, latents, descriptions, Folder.at(tmp_path / "out"), HERE)
    encoded = Folder.at(tmp_path / "latents")
    settings = EncodeSettings(
        resources=EncodeResources(workers=0), max_reject_share=1.0, embeds_speakers=False
    )
    encode(clips, encoded, settings, str(corpus / "codec"))
    with pytest.raises(PipelineError, match="other latents"):
        shard(clips, encoded, descriptions, Folder.at(tmp_path / "out"), HERE)
    with pytest.raises(IncompleteError):
        shard(clips, Folder.at(tmp_path / "no"), descriptions, Folder.at(tmp_path / "out"), HERE)
