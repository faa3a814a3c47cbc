from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.audio.files import AudioError, read_audio
from tests.factories.corpora import read_corpus, reasons, search, write_corpus, write_tone

CELLS = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
FEATURES = {
    "audio": {"sampling_rate": 8000, "_type": "Audio"},
    "sentence": {"dtype": "string", "_type": "Value"},
    "gender": {"names": ["male", "female"], "_type": "ClassLabel"},
}


def table(cells, **columns):
    """A table with the metadata that the package writes into its schema."""
    values = {"audio": pa.array(cells, CELLS)} | columns
    metadata = {"huggingface": json.dumps({"info": {"features": FEATURES}})}
    return pa.table(values).replace_schema_metadata(metadata)


def save(path, made):
    """One table of a split, as `save_to_disk` (Arrow stream) or the hub (Parquet) holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(made, path, row_group_size=2)
        return
    with pa.ipc.new_stream(path, made.schema) as writer:
        writer.write_table(made, max_chunksize=2)
    files = {"_data_files": [{"filename": path.name}], "_split": path.parent.name}
    (path.parent / "state.json").write_text(json.dumps(files))
    info = {"features": FEATURES, "license": "cc-by-4.0"}
    (path.parent / "dataset_info.json").write_text(json.dumps(info))


@pytest.fixture
def tones(tmp_path):
    folder = tmp_path / "tones"
    return [write_tone(folder / f"{seed}.flac", seed=seed).read_bytes() for seed in range(3)]


def columns(count):
    return {"sentence": [f"Word {n}." for n in range(count)], "gender": [1] * count}


def test_a_saved_dictionary_is_one_corpus_with_splits(tmp_path, tones):
    root = tmp_path / "saved"
    cells = [{"bytes": tone, "path": "x.flac"} for tone in tones]
    save(root / "train" / "data-00000-of-00001.arrow", table(cells, **columns(3)))
    save(root / "test" / "data-00000-of-00001.arrow", table(cells[:1], **columns(1)))
    (root / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    (root / "train" / "cache-1a2b.arrow").write_bytes(b"x")
    clips, rejects = read_corpus(root, "hugging_face", modality="speech")
    assert [row.split for row in clips.values()] == ["test", "train", "train", "train"]
    row = clips["train/data-00000-of-00001/2"]
    assert (row.transcript, row.speaker_sex, row.licence) == ("Word 2.", "female", "CC-BY-4.0")
    assert row.uri == f"{root}/train/data-00000-of-00001.arrow#audio/2"
    assert read_audio(row.uri).waveform.shape == (1, 3_200)
    assert rejects == []


def test_one_saved_split(tmp_path, tones):
    root = tmp_path / "speech" / "one"
    save(root / "data-00000-of-00001.arrow", table([{"bytes": tones[0], "path": None}]))
    clips, rejects = read_corpus(tmp_path / "speech", "hugging_face")
    assert list(clips) == ["data-00000-of-00001/0"]
    assert rejects == []


@pytest.mark.parametrize("place", ["", "data/"])
def test_parquet_of_the_hub(tmp_path, tones, place):
    root = tmp_path / "speech" / "hub"
    cells = [{"bytes": tone, "path": "x.flac"} for tone in tones]
    made = table(cells, **columns(3), id=["a", "b", "c"])
    save(root / f"{place}validation-00000-of-00001.parquet", made)
    (root / "README.md").write_text("---\nlicense: cc-by-sa-4.0\n---\n# Card\n")
    clips, rejects = read_corpus(tmp_path / "speech", "hugging_face")
    row = clips["c"]
    assert row.clip_id == "hub/c"
    assert (row.split, row.licence, row.transcript) == ("validation", "CC-BY-SA-4.0", "Word 2.")
    assert read_audio(row.uri).waveform.shape == (1, 3_200)
    assert rejects == []


@pytest.mark.parametrize("name", ["train-0.parquet", "train/data-0.arrow"])
def test_a_row_with_a_path_alone_names_a_file_of_the_folder(tmp_path, name):
    root = tmp_path / "speech"
    write_corpus(root, {"clips/a.wav": None})
    cells = [{"bytes": None, "path": "clips/a.wav"}, {"bytes": None, "path": "clips/none.wav"}]
    save(root / name, table(cells, **columns(2)))
    if name.endswith(".arrow"):
        (root / "dataset_dict.json").write_text('{"splits": ["train"]}')
    clips, rejects = read_corpus(root, "hugging_face")
    assert list(clips) == ["clips/a"]
    assert [(row.reason, row.line) for row in rejects] == [("missing_audio", 2)]


def test_bad_rows_and_files_are_rejects(tmp_path, tones):
    root = tmp_path / "speech"
    cells = [{"bytes": tone, "path": None} for tone in (tones[0], None, tones[2])]
    made = table(cells, sentence=["Good.", "Empty cell.", ""], gender=[5, None, 0])
    save(root / "train-0.parquet", made)
    (root / "train-1.parquet").write_bytes(b"no table")
    clips, rejects = read_corpus(root, "hugging_face")
    assert clips["train-0/0"].speaker_sex is None
    with pytest.raises(AudioError, match="no such file"):
        read_audio(clips["train-0/1"].uri)
    assert reasons(rejects) == [("missing_value", 3, "sentence"), ("malformed", None, None)]


def test_a_damaged_table_keeps_the_rows_before_the_damage(tmp_path, tones):
    root = tmp_path / "speech"
    path = root / "data-0.arrow"
    save(path, table([{"bytes": tone, "path": None} for tone in tones], **columns(3)))
    payload = path.read_bytes()
    path.write_bytes(payload[: len(payload) - 2_000])
    clips, rejects = read_corpus(root, "hugging_face")
    assert len(clips) == 2
    assert reasons(rejects) == [("malformed", None, None)]


def test_parquet_without_audio_is_left_to_other_layouts(tmp_path):
    write_corpus(tmp_path / "music", {"a.flac": None})
    made = pa.table({"file_name": ["a.flac"], "caption": ["A tune."]})
    pq.write_table(made, tmp_path / "music" / "train.parquet")
    assert [corpus.layout for corpus in search(tmp_path).corpora] == ["rows"]
