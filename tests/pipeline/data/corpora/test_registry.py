from __future__ import annotations

import json

import pyarrow as pa
import pytest

from pipeline.clip_tables import ClipTables
from pipeline.data.corpora.registry import GENERIC, LAST_RESORT, SPECIFIC, layout_named
from pipeline.data.ingest import IngestSettings, ingest
from pipeline.data.units.stage import Resources
from pipeline.storage import Folder
from tests.factories.corpora import search, write_corpus, write_tar, write_tone

WAVCAPS = json.dumps({"data": [{"id": "1", "caption": "Rain.", "duration": 0.4}]})
EMILIA = {"id": "x", "text": "ja", "speaker": "s", "language": "de", "dnsmos": 3.1, "duration": 0.4}
CV = "client_id\tpath\tsentence\tlocale\n"
JAMENDO = "TRACK_ID\tARTIST_ID\tALBUM_ID\tPATH\tDURATION\tTAGS\n"
FMA = ",set,set,track,track\n,split,subset,genre_top,title\ntrack_id,,,,\n2,test,small,Pop,Food\n"
PUBLISHED = {
    "audiocaps": {
        "train.csv": "audiocap_id,youtube_id,start_time,caption\n1,abc,3,Rain.\n",
        "train/abc_3.flac": None,
    },
    "clotho": {
        "clotho_captions_evaluation.csv": "file_name,"
        + ",".join(f"caption_{n}" for n in range(1, 6))
        + "\nb.wav,A,B,C,D,E\n",
        "evaluation/b.wav": None,
    },
    "common_voice": {
        "validated.tsv": CV + "ann\tc.mp3\tHello.\ten\n",
        "clips/c.mp3": None,
    },
    "esc50": {"meta/esc50.csv": "filename,category\nd.wav,dog\n", "audio/d.wav": None},
    "fma": {"fma_metadata/tracks.csv": FMA, "fma_small/000/000002.mp3": None},
    "fsd50k": {
        "FSD50K.ground_truth/eval.csv": "fname,labels,mids\n7,Dog,/m/1\n",
        "FSD50K.eval_audio/7.wav": None,
    },
    "hifi_tts": {
        "92_manifest_clean_dev.json": '{"audio_filepath": "audio/e.flac", "text": "yes"}\n',
        "audio/e.flac": None,
    },
    "librispeech": {"5/6/5-6-0000.flac": None, "5/6/5-6.trans.txt": "5-6-0000 YES\n"},
    "libritts": {
        "5/6/5_6_000000_000001.wav": None,
        "5/6/5_6.trans.tsv": "5_6_000000_000001\tYes.\tYes.\n",
    },
    "ljspeech": {"wavs/LJ001-0001.wav": None, "metadata.csv": "LJ001-0001|Yes|Yes\n"},
    "mtg_jamendo": {
        "data/autotagging.tsv": JAMENDO + "t1\ta1\tb1\t14/214.mp3\t0.4\tgenre---rock\n",
        "14/214.mp3": None,
    },
    "musiccaps": {"f.wav": None, "m.csv": "ytid,start_s,end_s,aspect_list,caption\nf,0,1,[],A.\n"},
    "opencpop": {
        "segments/wavs/2001000001.wav": None,
        "segments/train.txt": "2001000001|啊|a|C4|0.4|0.4|0\n",
    },
    "song_describer": {
        "song_describer.csv": "caption_id,track_id,caption,path\n1,9,Jazz.,09/9.mp3\n",
        "audio/09/9.2min.mp3": None,
    },
    "vctk": {
        "wav48_silence_trimmed/p1/p1_001_mic1.flac": None,
        "txt/p1/p1_001.txt": "Please.",
    },
    "wavcaps": {"json_files/SoundBible/sb_final.json": WAVCAPS, "SoundBible/1.flac": None},
}


def write_published(folder):
    """Every layout in a folder of its name, each with one clip unlike all others."""
    for seed, (layout, files) in enumerate(PUBLISHED.items()):
        write_corpus(folder / layout, {name: text for name, text in files.items() if text})
        (audio,) = (name for name, text in files.items() if text is None)
        write_tone(folder / layout / audio, seed=seed)
    tone = write_tone(folder.parent / "tone.flac", seed=50).read_bytes()
    other = write_tone(folder.parent / "tone.flac", seed=51).read_bytes()
    third = write_tone(folder.parent / "tone.flac", seed=52).read_bytes()
    write_tar(folder / "emilia" / "a.tar", {"x.flac": tone, "x.json": json.dumps(EMILIA)})
    write_tar(folder / "webdataset" / "a.tar", {"x.flac": other, "x.json": '{"caption": "Rain."}'})
    cells = pa.array([{"bytes": third, "path": None}])
    made = pa.table({"audio": cells, "caption": ["Rain."]})
    (folder / "hugging_face").mkdir()
    (folder / "hugging_face" / "state.json").write_text("{}")
    with pa.ipc.new_stream(folder / "hugging_face" / "data-0.arrow", made.schema) as writer:
        writer.write_table(made)
    return folder


def test_every_published_layout_is_recognised_beside_all_others(tmp_path):
    found = search(write_published(tmp_path / "in"), default_modality="sound").corpora
    assert {corpus.name: corpus.layout for corpus in found} == {
        corpus.name: corpus.name for corpus in found
    }
    assert {corpus.name for corpus in found} >= {*PUBLISHED, "emilia", "webdataset"}
    assert {corpus.name: (len(corpus.clips), list(corpus.rejects)) for corpus in found} == {
        corpus.name: (1, []) for corpus in found
    }


def test_clips_of_every_layout_are_decoded_where_they_lie(tmp_path):
    folder = write_published(tmp_path / "in")
    settings = IngestSettings(
        inputs=(str(folder),), modality="sound", resources=Resources(workers=0)
    )
    output = Folder.at(tmp_path / "clips")
    card = ingest(settings, output)
    assert (card["read"], card["written"]) == (len(PUBLISHED) + 3, len(PUBLISHED) + 3)
    rows = ClipTables.of(output).read_all().to_pylist()
    inside = {row["corpus"]: row["uri"].partition("#")[2] for row in rows if "#" in row["uri"]}
    assert inside == {"emilia": "x.flac", "webdataset": "x.flac", "hugging_face": "audio/0"}
    assert len({row["content_sha256"] for row in rows}) == len(rows)


def test_layouts_have_names_of_their_own():
    layouts = [corpus.layout for corpus in (*SPECIFIC, *GENERIC, LAST_RESORT)]
    assert len(set(layouts)) == len(layouts)
    assert [layout_named(name).layout for name in layouts] == layouts
    with pytest.raises(ValueError, match="no corpus layout 'nothing'"):
        layout_named("nothing")


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: b"",
        lambda text: text[: len(text) // 2],
        lambda text: b"\xff\xfe\0" + text,
        lambda text: text.replace(b"\n", b"\t\n"),
        lambda text: b"[" * 200,
        lambda text: b"[1]\n",
        lambda text: b'{"data": {"1": [null]}, "paths": 3}\n',
        None,
    ],
    ids=["empty", "half", "utf16", "cells", "deep", "list", "object", "gone"],
)
def test_damaged_manifests_never_raise(tmp_path, damage):
    folder = write_published(tmp_path / "in")
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix not in (".wav", ".flac", ".mp3"):
            text = path.read_bytes()
            path.write_bytes(damage(text)) if damage else path.unlink()
    for corpus in (*SPECIFIC, *GENERIC, LAST_RESORT):
        for name in (corpus.layout, "esc50"):
            if (folder / name).is_dir():
                found = search(folder / name, layout=corpus.layout, default_modality="sound")
                assert len(found.corpora) <= 1
    search(folder, default_modality="sound")
