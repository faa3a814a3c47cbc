from __future__ import annotations

from tests.factories.corpora import read_corpus, reasons, write_corpus


def picovoice(tmp_path, labels):
    write_corpus(
        tmp_path,
        {"label/label.json": labels, "speech/clean/a.opus": b"-", "speech/clean/b.opus": b"-"},
    )
    clips, rejects = read_corpus(tmp_path, "picovoice")
    return clips, [row for row in rejects if row.reason != "unreferenced"]


def test_intent_and_slots_are_tags_and_there_is_no_transcript(tmp_path):
    clips, rejects = picovoice(
        tmp_path, '{"a.opus": {"intent": "orderDrink", "slots": {"milkAmount": " cream"}}}'
    )
    row = clips["a"]
    assert row.tags == ("order drink", "milk amount: cream")
    assert (row.modality, row.transcript) == ("speech", None)
    assert row.uri.endswith("speech/clean/a.opus")
    assert rejects == []


def test_a_key_that_comes_twice_is_a_conflict_and_the_first_stays(tmp_path):
    clips, rejects = picovoice(
        tmp_path,
        '{"a.opus": {"intent": "x"}, "a.opus": {"intent": "y"}, "b.opus": {"intent": "z"}}',
    )
    assert [row.tags for row in clips.values()] == [("x",), ("z",)]
    assert reasons(rejects) == [("conflict", None, "a.opus")]


def test_entries_without_audio_or_intent_are_rejected(tmp_path):
    clips, rejects = picovoice(tmp_path, '{"c.opus": {"intent": "x"}, "a.opus": ["intent"]}')
    assert clips == {}
    assert reasons(rejects) == [("missing_audio", None, "c.opus"), ("malformed", None, "a.opus")]


def test_a_label_file_that_is_cut_off_is_one_reject(tmp_path):
    clips, rejects = picovoice(tmp_path, '{"a.opus": {"intent": "x"}, "b.op')
    assert clips == {}
    assert reasons(rejects) == [("malformed", 1, None)]
