from __future__ import annotations

from tests.factories.corpora import read_corpus, reasons, write_corpus

HEADER = (
    "caption_id,track_id,caption,is_valid_subset,familiarity,artist_id,album_id,path,duration\n"
)
LICENCES = (
    "34/1004034.mp3\n"
    "Lied by Anna from Jamendo: http://www.jamendo.com/track/1004034\n"
    "Available under a Creative Commons license: http://creativecommons.org/licenses/by-sa/3.0/\n"
)


def row(number, track, caption, is_valid="True"):
    path = f"{track % 100:02d}/{track}.mp3"
    return f'{number},{track},"{caption}",{is_valid},1,345,678,{path},267.8\n'


def test_captions_of_a_track_are_gathered_for_the_test_split(tmp_path):
    files = {
        "song_describer.csv": HEADER
        + row(1, 1004034, "A twisty song, with guitar.")
        + row(2, 1004034, "Acoustic guitar solo.", "")
        + row(3, 1004034, "Bad.", "False")
        + row(4, 415600, "Reggae."),
        "audio/34/1004034.2min.mp3": None,
        "audio/00/415600.2min.mp3": None,
        "audio_licenses.txt": LICENCES,
        "song_describer.mtg-jamendo.tsv": "track_1004034\tartist_1\n",
    }
    clips, rejects = read_corpus(write_corpus(tmp_path / "sdd", files), "song_describer")
    song = clips["1004034"]
    assert song.captions == ("A twisty song, with guitar.", "Acoustic guitar solo.")
    assert (song.modality, song.split, song.declared_duration_s) == ("music", "test", 120.0)
    assert (song.title, song.attribution, song.licence) == ("Lied", "Anna", "CC-BY-SA-3.0")
    assert clips["415600"].captions == ("Reggae.",)
    assert reasons(rejects) == [("unclaimed", None, None)]


def test_bad_rows_are_rejected_with_line_and_column(tmp_path):
    table = HEADER + row(1, 5, "Good.") + row(2, 6, "Lost.") + row(3, 5, " ") + "4,5\n"
    files = {"song_describer.csv": table, "audio/05/5.2min.mp3": None}
    clips, rejects = read_corpus(write_corpus(tmp_path, files), "song_describer")
    assert [song.captions for song in clips.values()] == [("Good.",)]
    assert reasons(rejects) == [
        ("missing_audio", 3, "track_id"),
        ("missing_value", 4, "caption"),
        ("malformed", 5, None),
    ]
