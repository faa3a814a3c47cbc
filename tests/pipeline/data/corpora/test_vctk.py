from __future__ import annotations

from tests.factories.corpora import read_corpus, reasons, write_corpus

INFO = """ID  AGE  GENDER  ACCENTS  REGION COMMENTS
p225  23  F    English    Southern  England
p315  18  M    American   New  England (Text unavailable)
s5    22  F    British    English
"""


def tree(*keys, mics=(1, 2)):
    folder = "wav48_silence_trimmed"
    return {f"{folder}/{k.split('_')[0]}/{k}_mic{mic}.flac": None for k in keys for mic in mics}


def test_the_first_microphone_with_the_text_of_the_other_tree(tmp_path):
    files = tree("p225_001", "s5_002") | {
        "speaker-info.txt": INFO,
        "update.txt": "trimmed",
        "txt/p225/p225_001.txt": "Please call Stella.\n",
        "txt/s5/s5_002.txt": "Ask her to bring these things.",
        "wav48_silence_trimmed/log.txt": "x",
    }
    clips, rejects = read_corpus(write_corpus(tmp_path / "VCTK-Corpus-0.92", files), "vctk")
    assert sorted(clips) == ["p225_001", "s5_002"]
    row = clips["p225_001"]
    assert row.uri.endswith("p225/p225_001_mic1.flac")
    assert (row.transcript, row.language) == ("Please call Stella.", "en")
    assert (row.speaker, row.speaker_sex) == ("VCTK-Corpus-0.92/p225", "female")
    assert (row.licence, row.split in ("train", "validation", "test")) == ("CC-BY-4.0", True)
    assert rejects == []


def test_the_first_release_has_one_microphone_and_bare_ids(tmp_path):
    files = {
        "speaker-info.txt": "ID  AGE  GENDER  ACCENTS  REGION\n225  23  F    English    Southern\n",
        "wav48/p225/p225_001.wav": None,
        "txt/p225/p225_001.txt": "Please call Stella.",
    }
    clips, rejects = read_corpus(write_corpus(tmp_path, files), "vctk")
    row = clips["p225_001"]
    assert (row.speaker_sex, row.licence) == ("female", "ODC-By-1.0")
    assert rejects == []


def test_a_speaker_without_texts_is_untranscribed(tmp_path):
    files = tree("p315_001") | {"speaker-info.txt": INFO}
    clips, rejects = read_corpus(write_corpus(tmp_path, files), "vctk")
    assert (clips["p315_001"].transcript, clips["p315_001"].speaker_sex) == (None, "male")
    assert rejects == []


def test_bad_speakers_texts_without_audio_and_loose_audio_are_rejects(tmp_path):
    files = (
        tree("p225_001")
        | tree("p225_003", mics=(2,))
        | {
            "speaker-info.txt": INFO + "p999 oops\n",
            "txt/p225/p225_001.txt": b"caf\xe9",
            "txt/p225/p225_002.txt": "Lost.",
            "txt/p225/p225_003.txt": "Only the second microphone.",
            "wav48_silence_trimmed/p225/other.flac": None,
        }
    )
    clips, rejects = read_corpus(write_corpus(tmp_path, files), "vctk")
    assert clips == {}
    assert reasons(rejects) == [
        ("malformed", 5, None),
        ("encoding", None, None),
        ("missing_audio", None, None),
        ("missing_audio", None, None),
        ("unreferenced", None, None),
    ]
