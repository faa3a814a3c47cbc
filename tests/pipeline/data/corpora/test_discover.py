from __future__ import annotations

import os
from pathlib import Path

import fsspec
import pytest

from pipeline.audio.files import read_audio
from pipeline.data.corpora.catalogue import SplitRule
from pipeline.data.corpora.discover import Source, discover
from pipeline.errors import SettingsError
from pipeline.storage import Folder
from tests.factories.corpora import search, write_corpus, write_tone

LJ = {"wavs/a.wav": None, "metadata.csv": "a|hello\n"}
ESC = {"audio/b.wav": None, "meta/esc50.csv": "filename,category\nb.wav,dog\n"}


def under(prefix, files):
    return {f"{prefix}/{name}": contents for name, contents in files.items()}


def test_every_corpus_below_an_input_is_found_by_its_layout(tmp_path):
    files = under("speech/lj", LJ) | under("sound/esc", ESC) | {"sound/x/loose.wav": None}
    discovery = search(write_corpus(tmp_path, files))
    assert {corpus.name: corpus.layout for corpus in discovery.corpora} == {
        "sound-esc": "esc50",
        "sound-x": "folder",
        "speech-lj": "ljspeech",
    }
    assert sum(len(corpus.clips) for corpus in discovery.corpora) == 3


def test_every_file_is_accounted_for(tmp_path):
    files = under("speech/lj", LJ) | {
        "speech/lj/wavs/extra.wav": None,
        "speech/lj/README": "words",
        "notes.txt": "words",
        "stray.csv": "a,b\n",
        "broken.json": "{",
        "loose/c.wav": None,
    }
    discovery = search(write_corpus(tmp_path, files), default_modality="sound")
    clips = [row.uri for corpus in discovery.corpora for row, _ in corpus.clips]
    rejects = {
        Path(row.uri).name: row.reason for corpus in discovery.corpora for row in corpus.rejects
    }
    assert len(clips) == 2
    assert rejects == {
        "extra.wav": "unreferenced",
        "stray.csv": "unclaimed",
        "broken.json": "malformed",
    }
    assert discovery.ignored == {"(none)": 1, ".txt": 1}


def test_the_deepest_corpus_wins_over_one_around_it(tmp_path):
    table = "file,caption,modality\nspeech/lj/wavs/a.wav,A voice.,speech\ntop.wav,Rain.,sound\n"
    files = under("speech/lj", LJ) | {"all.csv": table, "top.wav": None}
    discovery = search(write_corpus(tmp_path, files))
    corpora = {corpus.layout: corpus for corpus in discovery.corpora}
    assert [row.transcript for row, _ in corpora["ljspeech"].clips] == ["hello"]
    assert [row.captions for row, _ in corpora["table"].clips] == [("Rain.",)]
    assert [row.reason for row in corpora["table"].rejects] == ["missing_audio"]


def test_two_corpora_of_one_name_are_refused_with_the_remedy(tmp_path):
    write_corpus(tmp_path, under("one/lj", LJ) | under("two/lj", LJ))
    with pytest.raises(SettingsError, match=r"two corpora are called 'lj'.*`corpora`"):
        search(tmp_path / "one", tmp_path / "two")


def test_an_input_inside_another_is_read_once(tmp_path):
    write_corpus(tmp_path, under("in/lj", LJ) | under("in/esc", ESC))
    discovery = search(tmp_path / "in", tmp_path / "in" / "lj")
    assert sorted(corpus.name for corpus in discovery.corpora) == ["esc", "lj"]


def test_a_missing_input_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="does not exist"):
        search(tmp_path / "nowhere")
    write_corpus(tmp_path, {"file": "x"})
    with pytest.raises(SettingsError, match="is not a directory"):
        search(tmp_path / "file")


def test_an_unknown_layout_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(ValueError, match=r"no corpus layout 'lj'; known are .*ljspeech"):
        search(write_corpus(tmp_path, LJ), layout="lj")


def test_facts_of_settings_override_the_corpus(tmp_path):
    write_corpus(tmp_path, LJ)
    (corpus,) = search(tmp_path, modality="music", language="fr", licence="MIT").corpora
    ((row, _),) = corpus.clips
    assert (row.modality, row.language, row.licence) == ("music", "fr", "MIT")


def test_links_sockets_and_names_that_are_not_unicode(tmp_path):
    folder = write_corpus(tmp_path / "sound", {"real.wav": None})
    (folder / "link.wav").symlink_to(folder / "real.wav")
    (folder / "dangling.wav").symlink_to(folder / "none.wav")
    (folder / "loop").symlink_to(folder)
    os.mkfifo(folder / "pipe.wav")
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.wav")).write_bytes(b"x")
    discovery = search(folder)
    names = [Path(row.uri).name for corpus in discovery.corpora for row, _ in corpus.clips]
    rejects = {
        Path(row.uri).name: row.reason for corpus in discovery.corpora for row in corpus.rejects
    }
    assert names == ["link.wav", "real.wav"]
    assert rejects == {
        "dangling.wav": "not_a_file",
        "loop": "not_a_file",
        "pipe.wav": "not_a_file",
        "caf\\xe9.wav": "bad_name",
    }


def test_few_speakers_are_split_by_clip_and_many_by_speaker(tmp_path):
    names = [f"{n % 10}_{who}_{n}.wav" for n in range(60) for who in ("ann", "bob")]
    few = search(write_corpus(tmp_path / "few", dict.fromkeys(names, b"x")))
    assert len({row.split for row, _ in few.corpora[0].clips}) == 3
    speakers = ["ann", "bob", "cid", "dan", "eve", "fay", "gus", "hal", "ida", "jon"]
    names = [f"{n}_{who}_{n}.wav" for n in range(8) for who in speakers]
    many = search(write_corpus(tmp_path / "many", dict.fromkeys(names, b"x")))
    splits = {}
    for row, _ in many.corpora[0].clips:
        splits.setdefault(row.speaker, set()).add(row.split)
    assert all(len(found) == 1 for found in splits.values())
    assert len(splits) == 10


def splits_of(folder, table):
    """Splits by key of the clips of a table, whose audio is only looked at by name."""
    names = {line.partition(",")[0] for line in table.splitlines()[1:]}
    write_corpus(folder, dict.fromkeys(sorted(names), b"x") | {"t.csv": table})
    (corpus,) = search(folder).corpora
    return {row.clip_id.removeprefix(f"{corpus.name}/"): row.split for row, _ in corpus.clips}


def test_spans_of_one_recording_are_in_one_split_wherever_it_lies(tmp_path):
    rows = [f"{name}.wav,{at},{at + 10},music,A tune." for name in range(30) for at in range(3)]
    table = "file,start_s,end_s,modality,caption\n" + "\n".join([*rows, "0.wav,,,music,All."])
    splits = splits_of(tmp_path / "one" / "c", table)
    of_file = {}
    for key, split in splits.items():
        of_file.setdefault(key.partition("@")[0], set()).add(split)
    assert len(of_file) == 30
    assert all(len(found) == 1 for found in of_file.values())
    assert set.union(*of_file.values()) == {"train", "validation", "test"}
    assert splits_of(tmp_path / "two" / "c", table) == splits


def test_a_clip_without_a_split_follows_its_speaker_to_the_strictest(tmp_path):
    table = "file,speaker,split,modality,transcript\n" + "".join(
        f"{who}{number}.wav,{who},{split},speech,hello\n"
        for who, declared in {
            "ann": ("train", "test", "", ""),
            "bob": ("train", "dev", "", ""),
            "cid": ("", "train", "", ""),
            "dan": ("", "", "", ""),
        }.items()
        for number, split in enumerate(declared)
    )
    splits = splits_of(tmp_path, table)
    of_speaker = {who: [splits[f"{who}{n}"] for n in range(4)] for who in ("ann", "bob", "cid")}
    assert of_speaker == {
        "ann": ["train", "test", "test", "test"],
        "bob": ["train", "validation", "validation", "validation"],
        "cid": ["train"] * 4,
    }
    assert len({splits[f"dan{n}"] for n in range(4)}) == 1


def test_a_span_without_a_split_follows_its_file(tmp_path):
    rows = "".join(f"a.wav,{at},{at + 1},,music,A tune.\n" for at in range(20))
    table = f"file,start_s,end_s,split,modality,caption\na.wav,30,31,test,music,End.\n{rows}"
    assert set(splits_of(tmp_path, table).values()) == {"test"}


def test_nothing_left_for_training_is_said(tmp_path, caplog):
    rows = "".join(f"{n}.wav,{n % 3},{'test' * (n < 3)},speech,hi\n" for n in range(9))
    splits = splits_of(tmp_path / "c", f"file,speaker,split,modality,transcript\n{rows}")
    assert set(splits.values()) == {"test"}
    assert "c: no clip is left for training; 6 of 9 declare no split" in caplog.text
    caplog.clear()
    rows += "x.wav,,train,speech,hi\n"
    splits_of(tmp_path / "d", f"file,speaker,split,modality,transcript\n{rows}")
    assert "no clip is left" not in caplog.text


def test_files_on_another_file_system_get_percent_encoded_uris(tmp_path):
    import fsspec

    memory = fsspec.filesystem("memory")
    payload = write_tone(tmp_path / "x.wav").read_bytes()
    memory.pipe(
        {
            "/bucket/speech/a b/wavs/é.wav": payload,
            "/bucket/speech/a b/metadata.csv": b"\xc3\xa9|hi\n",
        }
    )
    (corpus,) = search("memory://bucket").corpora
    ((row, fact),) = corpus.clips
    assert (corpus.layout, row.transcript) == ("ljspeech", "hi")
    assert row.uri == "memory://bucket/speech/a%20b/wavs/%C3%A9.wav"
    assert fact.size_bytes == len(payload)
    assert read_audio(row.uri).waveform.shape == (1, 3_200)


LITTER = {
    "sound/._a.wav": b"\0\5\x16\7" + bytes(200),
    "sound/._t.csv": b"\0\5\x16\7" + bytes(200),
    "sound/.DS_Store": b"x",
    "sound/Thumbs.db": b"x",
    "sound/desktop.ini": "x",
    "__MACOSX/sound/._a.wav": b"x",
    "__MACOSX/sound/deep/b.wav": b"x",
    "sound/.ipynb_checkpoints/t.csv": "file,caption\n",
    "sound/@eaDir/a.wav@SynoEAStream": b"x",
    "sound/.git/objects/x.wav": b"x",
}
COUNTED = {
    "._*": 2,
    ".DS_Store": 1,
    "Thumbs.db": 1,
    "desktop.ini": 1,
    "__MACOSX/": 1,
    ".ipynb_checkpoints/": 1,
    "@eaDir/": 1,
    ".git/": 1,
    ".md": 1,
}


def test_litter_of_systems_is_no_part_of_a_corpus_and_is_counted(tmp_path, caplog):
    good = {"sound/a.wav": None, "sound/t.csv": "file,caption\na.wav,Rain.\n", "notes.md": "x"}
    write_corpus(tmp_path, good | LITTER)
    with caplog.at_level("INFO"):
        discovery = search(tmp_path)
    (corpus,) = discovery.corpora
    assert ([row.captions for row, _ in corpus.clips], list(corpus.rejects)) == ([("Rain.",)], [])
    assert discovery.ignored == dict(sorted(COUNTED.items()))
    (line,) = [record.message for record in caplog.records if "ignored" in record.message]
    assert "2 ._*" in line
    assert "1 .md" in line


def test_litter_on_another_file_system_is_counted_the_same(tmp_path):
    write_corpus(tmp_path, {"a.wav": None})
    memory = fsspec.filesystem("memory")
    payload = (tmp_path / "a.wav").read_bytes()
    files = {
        "sound/a.wav": payload,
        "sound/t.csv": b"file,caption\na.wav,Rain.\n",
        "notes.md": b"x",
    }
    for name, contents in (files | LITTER).items():
        memory.pipe(
            f"/litter/{name}", contents if isinstance(contents, bytes) else contents.encode()
        )
    discovery = search("memory://litter")
    (corpus,) = discovery.corpora
    assert (len(corpus.clips), list(corpus.rejects)) == (1, [])
    assert discovery.ignored == dict(sorted(COUNTED.items()))


@pytest.mark.ray
def test_tasks_of_a_cluster_find_what_one_process_finds(tmp_path, ray_session):
    folders = [
        write_corpus(tmp_path / name / "sound", {f"{name}-{n}.wav": b"x" for n in range(3)})
        for name in ("one", "two")
    ]
    sources = [Source(uri=str(folder), name=folder.parent.name) for folder in folders]
    rule = SplitRule(validation_share=0.1, test_share=0.1, min_speakers=3, is_declared_kept=True)
    here, there = Folder.at(tmp_path / "here"), Folder.at(tmp_path / "there")
    by_process = discover(sources, rule, here, uses_tasks=False)
    by_tasks = discover(sources, rule, there)
    assert by_tasks.corpora == by_process.corpora
    assert by_tasks.ignored == by_process.ignored
    assert there.files() == here.files() != []
    missing = [*sources, Source(uri=str(tmp_path / "none"))]
    with pytest.raises(SettingsError, match="none does not exist; give the directory"):
        discover(missing, rule, there)
