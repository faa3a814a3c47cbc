from __future__ import annotations

import json

import pytest

from pipeline.data.screening.id_lists import IdList, ListedIds
from pipeline.errors import SettingsError


def listed(tmp_path, name, payload, corpus=None):
    (tmp_path / name).write_text(payload)
    return ListedIds((IdList(path=str(tmp_path / name), corpus=corpus),))


@pytest.mark.parametrize(
    ("name", "payload"),
    [
        ("ids.txt", "17\nfold/18.wav\n\n"),
        ("ids.json", '["17", "fold/18.wav"]'),
        ("ids.json", '[17, "fold/18"]'),
    ],
)
def test_a_list_names_keys_last_parts_and_files(tmp_path, name, payload):
    ids = listed(tmp_path, name, payload)
    assert all(ids.why("c", f"c/{key}") for key in ("17", "17.wav", "deep/17", "fold/18"))
    assert not any(ids.why("c", f"c/{key}") for key in ("18", "171", "other/18"))
    assert "ids." in ids.why("c", "c/17")


def test_the_keys_of_an_object_are_sources_as_in_wavcaps(tmp_path):
    ids = listed(tmp_path, "b.json", json.dumps({"FreeSound": ["12"], "AudioSet": ["Yx.wav"]}))
    assert ids.why("w", "w/FreeSound/12")
    assert ids.why("w", "w/AudioSet/Yx")
    assert not ids.why("w", "w/BBC_Sound_Effects/12")


def test_a_list_of_one_corpus_says_nothing_of_others(tmp_path):
    ids = listed(tmp_path, "ids.txt", "1\n", corpus="w")
    assert ids.why("w", "w/1")
    assert not ids.why("v", "v/1")


@pytest.mark.parametrize("payload", ["", "{", '{"a": 1}'])
def test_a_list_without_ids_is_refused(tmp_path, payload):
    with pytest.raises(SettingsError, match="id_lists"):
        listed(tmp_path, "ids.json", payload)
    with pytest.raises(SettingsError, match=r"id_lists.*gone"):
        ListedIds((IdList(path=str(tmp_path / "gone.txt")),))
