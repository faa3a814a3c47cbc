from __future__ import annotations

from tests.factories.corpora import read_corpus, reasons, write_corpus


def line(key, lyrics="感受停在我发端的指尖"):
    return f"{key}|{lyrics}|g an sh ou|C#4/Db4 D4|0.1 0.2|0.1 0.2|0 0\n"


FILES = {
    "midis/2001.midi": "x",
    "textgrids/2001.TextGrid": "x",
    "wavs/2001.wav": None,
    "segments/wavs/2001000001.wav": None,
    "segments/wavs/2001000002.wav": None,
    "segments/wavs/2001000003.wav": None,
}


def test_lyrics_are_the_transcript_of_singing(tmp_path):
    tables = {
        "segments/train.txt": line("2001000001"),
        "segments/test.txt": line("2001000002", "如何瞬间冻结时间"),
        "segments/transcriptions.txt": line("2001000001") + line("2001000002") + line("2001000003"),
    }
    clips, rejects = read_corpus(write_corpus(tmp_path / "Opencpop", FILES | tables), "opencpop")
    first, second = clips["2001000001"], clips["2001000002"]
    assert (first.transcript, first.is_singing, first.modality) == (
        "感受停在我发端的指尖",
        True,
        "speech",
    )
    assert (first.language, first.speaker_sex, first.speaker) == ("zh", "female", "Opencpop/singer")
    assert (first.split, second.split, len(clips)) == ("train", "test", 3)
    assert rejects == []


def test_bad_lines_are_rejected_with_their_number(tmp_path):
    text = line("2001000001") + "2001000002|x\n" + line("2009000001") + line("2001000003", " ")
    clips, rejects = read_corpus(
        write_corpus(tmp_path, FILES | {"segments/train.txt": text}), "opencpop"
    )
    assert list(clips) == ["2001000001"]
    assert reasons(rejects) == [
        ("malformed", 2, None),
        ("missing_audio", 3, "id"),
        ("missing_value", 4, "lyrics"),
        ("unreferenced", None, None),
    ]
