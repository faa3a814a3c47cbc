from __future__ import annotations

import pytest

from tests.factories.corpora import read_corpus, reasons, write_corpus


def test_title_and_licence_come_from_index_and_text(tmp_path):
    write_corpus(
        tmp_path / "music" / "examples",
        {
            "index/index.json": '{"brahms": {"path": "Dance_(strings)", "desc": "Brahms - Dance"}}',
            "audio/Dance_(strings).ogg": None,
            "audio/Dance_(strings).txt": "https://creativecommons.org/licenses/by/3.0/",
        },
    )
    clips, rejects = read_corpus(tmp_path, "audio_index")
    row = clips["brahms"]
    assert (row.title, row.modality, row.licence) == ("Brahms - Dance", "music", "CC-BY-3.0")
    assert row.clip_id == "music-examples/brahms"
    assert rejects == []


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        ('{"a": {"path": "none", "desc": "x"}}', ("missing_audio", None, "a")),
        ('{"a": {"desc": "no", "paths": "path"}, "b": {"path": 7}}', ("malformed", None, "a")),
        ('{"a": {"path": "../../secret"}}', ("outside_corpus", None, "a")),
    ],
)
def test_bad_entries_are_rejected_by_key(tmp_path, index, expected):
    write_corpus(tmp_path, {"index.json": index + " ", "x.ogg": None})
    clips, rejects = read_corpus(tmp_path, "audio_index", default_modality="music")
    assert clips == {}
    assert expected in reasons(rejects)
