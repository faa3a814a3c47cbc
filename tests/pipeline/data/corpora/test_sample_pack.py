from __future__ import annotations

from tests.factories.corpora import read_corpus, write_corpus

README = """# Samples

The samples prefixed with `arovane_` have been kindly donated by Uwe Zahn (Arovane).
http://creativecommons.org/publicdomain/zero/1.0/

* `:bd_808` - http://example.org/208447/
"""


def test_prefix_and_name_are_tags_and_the_readme_gives_sources(tmp_path):
    write_corpus(
        tmp_path / "music" / "pack",
        {
            "README.md": README,
            "bd_808.flac": None,
            "arovane_beat_a.flac": None,
            "loop_drone_g.ogg": None,
        },
    )
    clips, rejects = read_corpus(tmp_path, "sample_pack")
    kick = clips["bd_808"]
    assert kick.tags == ("bass drum", "808")
    assert (kick.attribution, kick.modality) == ("http://example.org/208447/", "music")
    assert kick.licence == "CC0-1.0"
    assert clips["arovane_beat_a"].attribution == "Uwe Zahn"
    assert clips["loop_drone_g"].notes[0].startswith("unlisted:")
    assert rejects == []


def test_a_readme_that_lists_nothing_there_is_no_pack(tmp_path):
    write_corpus(tmp_path / "music", {"README.md": README, "other.wav": None})
    clips, _ = read_corpus(tmp_path, "folder")
    assert list(clips) == ["other.wav"]
