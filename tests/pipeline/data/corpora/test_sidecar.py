from __future__ import annotations

import pytest

from tests.factories.corpora import read_corpus, reasons, write_corpus


def sidecar(tmp_path, text, **facts):
    write_corpus(tmp_path, {"a.ogg": None, "a.json": text, "ok.ogg": None, "ok.json": "{}"})
    clips, rejects = read_corpus(tmp_path, "json_sidecar", default_modality="sound", **facts)
    clips.pop("ok")
    return clips, rejects


def test_keys_of_a_music_library_are_understood(tmp_path):
    text = """{"key": "", "artist": "Y", "description": "A battle.", "keywords": "warm, loud",
        "duration": 15.0, "bpm": 110, "genre": "video game", "title": "Boss", "name": "a",
        "instrument": "Mix", "moods": [], "sample_rate": 44100}"""
    clips, rejects = sidecar(tmp_path, text)
    row = clips["a"]
    assert row.modality == "music"
    assert row.captions == ("A battle.",)
    assert row.tags == ("warm", "loud", "video game", "Mix", "110 bpm")
    assert (row.title, row.attribution, row.declared_duration_s) == ("Boss", "Y", 15.0)
    assert rejects == []


def test_tempo_key_style_and_instruments_become_tags(tmp_path):
    text = (
        '{"title": "T", "caption": "C.", "style": "waltz", "instruments": ["piano", "flute"],'
        ' "tempo_bpm": 92.5, "key": "G minor", "duration_s": 4}'
    )
    clips, _ = sidecar(tmp_path, text)
    assert clips["a"].tags == ("waltz", "piano", "flute", "92.5 bpm", "key of G minor")


def test_wrong_types_are_coerced_or_left_out_with_a_note(tmp_path):
    text = '{"description": ["x"], "duration": "15.0", "genre": null, "moods": "sad", "title": {}}'
    clips, rejects = sidecar(tmp_path, text)
    row = clips["a"]
    assert (row.captions, row.tags, row.declared_duration_s) == (("x",), ("sad",), 15.0)
    assert row.notes == ("title: JsonObject where text belongs, left out",)
    assert rejects == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"description": "x"', ("malformed", 1, None)),
        ('{"description": "x",}', ("malformed", 1, None)),
        ('{"caption": "x", "caption": "y"}', ("conflict", None, "caption")),
        ('{"caption": "x", "duration": Infinity}', ("malformed", None, None)),
        ("[1, 2, 3]", ("malformed", None, None)),
        ("[" * 3000 + "]" * 3000, ("malformed", None, None)),
        ('{"a":' * 3000 + "1" + "}" * 3000, ("malformed", None, None)),
        ("", ("empty_manifest", None, None)),
        (b'{"caption": "\xff"}', ("encoding", 1, None)),
        ('{"bpm": ' + "9" * 5000 + "}", ("malformed", None, None)),
    ],
    ids=[
        "cut",
        "comma",
        "twice",
        "infinite",
        "list",
        "deep lists",
        "deep",
        "empty",
        "latin1",
        "digits",
    ],
)
def test_what_is_not_strict_json_is_one_reject(tmp_path, text, expected):
    clips, rejects = sidecar(tmp_path, text)
    assert clips == {}
    assert reasons(rejects) == [expected]


def test_a_sidecar_without_audio_and_audio_without_sidecar_are_reported(tmp_path):
    write_corpus(tmp_path, {"a.ogg": None, "a.json": "{}", "b.json": "{}", "c.ogg": None})
    clips, rejects = read_corpus(tmp_path, "json_sidecar", default_modality="sound")
    assert list(clips) == ["a"]
    assert sorted(row.reason for row in rejects) == ["missing_audio", "unreferenced"]


def test_nan_is_a_missing_value(tmp_path):
    clips, rejects = sidecar(tmp_path, '{"caption": "x", "title": NaN, "duration": NaN}')
    assert rejects == []
    assert (clips["a"].captions, clips["a"].title, clips["a"].notes) == (("x",), None, ())
