from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from model.text import Prompt, render, transcript_of
from pipeline.data.describe import DescribeSettings, describe
from pipeline.data.encode import EncodeResources, EncodeSettings, encode
from pipeline.data.schema import INDEX, ClipRow
from pipeline.data.shard import ShardSettings, ShardWorker, shard
from pipeline.data.shards import clip_key, read_npy
from pipeline.data.stage import Resources
from pipeline.errors import IncompleteError, PipelineError
from pipeline.storage import Folder, read_tables
from tests.factories.clips import noise, small_corpus, write_clips, write_codec
from tests.factories.shards import read_webdataset
from tests.factories.stage import snapshot

R = Resources(workers=0)
HERE = ShardSettings(resources=R, target_bytes=20_000)
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


def test_index_leads_to_the_same_latents_and_texts(corpus):
    shards, latents = Folder.at(corpus / "train-shards"), Folder.at(corpus / "latents")
    names = [f"parts/{name}" for name in latents.child("parts").files()]
    source = {row["clip_id"]: row for row in read_tables(latents, names).to_pylist()}
    rows = index_of(shards)
    assert len(rows) == 10
    for row in rows:
        tar, origin = f"shards/{row['shard']}.tar", source[row["clip_id"]]
        for name in ("mean", "log_std"):
            mine = shards.read_range(tar, row[f"{name}_offset"], row[f"{name}_size"])
            theirs = latents.read_range(
                f"shards/{origin['shard']}.tar", origin[f"{name}_offset"], origin[f"{name}_size"]
            )
            assert mine == theirs
        assert len(read_npy(mine, "log_std")) == row["num_frames"]
        facts = json.loads(shards.read_range(tar, row["json_offset"], row["json_size"]))
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
    tar = f"shards/{row['shard']}.tar"
    facts = json.loads(shards.read_range(tar, row["json_offset"], row["json_size"]))
    prompt = Prompt(description=facts["descriptions"][0], transcript=facts["transcript"])
    assert transcript_of(render(prompt)) == 'Line 1:\n"Says: quoted"'


def test_webdataset_reads_the_tars(corpus):
    samples = [
        sample
        for path in sorted((corpus / "train-shards/shards").iterdir())
        for sample in read_webdataset(path)
    ]
    by_key = {sample["__key__"]: sample for sample in samples}
    assert len(by_key) == len(samples) == 10
    for row, _ in small_corpus():
        sample = by_key[clip_key(row.clip_id)]
        assert sample["json"]["clip_id"] == row.clip_id
        assert sample["mean.npy"].shape == sample["log_std.npy"].shape
        assert sample["mean.npy"].dtype == np.float16


def test_each_shard_holds_one_split_and_the_card_says_which(corpus):
    folder = Folder.at(corpus / "train-shards")
    splits = folder.card()["splits"]
    assert splits.keys() == {"train", "validation"}
    for row in index_of(folder):
        assert row["shard"] in splits[row["split"]]


def test_statistics_are_of_the_train_split_in_sampled_latents(corpus):
    folder = Folder.at(corpus / "train-shards")
    per_modality: dict[str, list] = {}
    for row in index_of(folder):
        if row["split"] != "train":
            continue
        tar = f"shards/{row['shard']}.tar"
        mean, log_std = (
            read_npy(folder.read_range(tar, row[f"{n}_offset"], row[f"{n}_size"]), n).astype(float)
            for n in ("mean", "log_std")
        )
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


def test_second_run_gives_the_same_bytes_elsewhere_and_does_nothing_here(
    corpus, tmp_path, monkeypatch
):
    inputs = [Folder.at(corpus / name) for name in INPUTS]
    shard(*inputs, Folder.at(tmp_path / "again"), HERE)
    assert snapshot(tmp_path / "again") == snapshot(corpus / "train-shards")
    monkeypatch.setattr(ShardWorker, "process", None)
    shard(*inputs, Folder.at(tmp_path / "again"), HERE)


def test_shards_of_a_split_are_of_like_size(tmp_path):
    rows = [
        (
            ClipRow(clip_id=f"n/{i}", corpus="n", uri="", modality="sound", tags=("rain",)),
            noise(0.3 + 0.1 * (i % 9), i),
        )
        for i in range(24)
    ]
    inputs = make_inputs(tmp_path, rows, rows_per_part=10)
    for target_bytes in (15_000, 30_000, 90_000):
        settings = HERE.model_copy(update={"target_bytes": target_bytes})
        shard(*inputs, Folder.at(tmp_path / "out"), settings)
        sizes: dict[str, int] = {}
        largest = 0
        for row in index_of(Folder.at(tmp_path / "out")):
            size = row["mean_size"] + row["log_std_size"] + 1024
            sizes[row["shard"]] = sizes.get(row["shard"], 0) + size
            largest = max(largest, size)
        assert len(sizes) == max(1, round(sum(sizes.values()) / target_bytes))
        assert max(sizes.values()) - min(sizes.values()) <= 2 * largest


def test_new_words_redo_shards_but_no_latents(corpus, tmp_path):
    clips, latents = Folder.at(corpus / "clips"), Folder.at(corpus / "latents")
    descriptions, out = Folder.at(tmp_path / "descriptions"), Folder.at(tmp_path / "out")
    describe(clips, latents, descriptions, DescribeSettings(resources=R))
    before = shard(clips, latents, descriptions, out, HERE)
    describe(clips, latents, descriptions, DescribeSettings(resources=R, seed=7))
    after = shard(clips, latents, descriptions, out, HERE)
    assert after["latent_stats"] == before["latent_stats"]
    assert after["files"] != before["files"]


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
