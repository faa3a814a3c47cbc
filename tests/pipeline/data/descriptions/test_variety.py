from __future__ import annotations

import pyarrow as pa
import pytest

from pipeline.data.descriptions import variety
from pipeline.data.descriptions.variety import VarietyMeter, form_of, measure_folder
from pipeline.data.schema import DESCRIPTIONS
from pipeline.storage import Folder, table_bytes


def measured(*texts: str):
    meter = VarietyMeter()
    for text in texts:
        meter.add(text)
    return meter.result()


def test_texts_words_and_their_ratio_are_counted():
    found = measured("A dog barks.", "a DOG barks.", "The dog's bark, twice.")
    assert (found.texts, found.distinct_texts, found.duplicate_share) == (3, 2, 0.3333)
    assert (found.words, found.word_types) == (10, 7)
    assert found.type_token_ratio == 0.7
    assert found.words_per_text == 3.33
    assert found.type_token_ratio_1000 is None


def test_same_form_with_other_words_is_one_form():
    assert form_of("A loud dog barks in the yard.") == "a _ in the _ ."
    assert form_of("A cat sings in the rain.") == form_of("A loud dog barks in the yard.")
    assert form_of("Rain, loud, 120 BPM") == "_ , _ , _"
    assert measured("A dog.", "A cat.", "The cat.").distinct_forms == 2


def test_ratio_of_windows_does_not_fall_with_length():
    words = [f"word{number}" for number in range(500)]
    short, long = (measured(*[" ".join(words)] * times) for times in (2, 8))
    assert short.type_token_ratio_1000 == long.type_token_ratio_1000 == 0.5
    assert long.type_token_ratio < short.type_token_ratio


def test_nothing_measured_has_no_variety():
    assert measured().texts == 0
    assert measured().type_token_ratio == 0


@pytest.mark.parametrize("limit", [100_000, 500])
def test_folder_is_measured_by_modality_and_sampled_beyond_the_limit(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(variety, "MAX_TEXTS", limit)
    folder, names = Folder.at(tmp_path), [f"parts/part-{part:08d}.parquet" for part in range(2)]
    for part in range(2):
        rows = [
            {
                "clip_id": f"c/{part}-{number}",
                "modality": "sound" if number % 2 else "music",
                "descriptions": [f"text {part} {number}", "again"],
            }
            for number in range(500)
        ]
        payload = table_bytes(pa.Table.from_pylist(rows, schema=DESCRIPTIONS))
        folder.write_bytes(names[part], payload)
    folder.write_bytes("parts/stray.parquet", b"of an abandoned attempt")
    found = measure_folder(folder, names, 1000)
    assert sorted(found) == ["all", "music", "sound"]
    assert found["all"]["texts"] == found["music"]["texts"] + found["sound"]["texts"]
    if limit == 100_000:
        assert (found["all"]["texts"], found["all"]["distinct_texts"]) == (2000, 1001)
    else:
        assert 350 < found["all"]["texts"] < 650
    assert found == measure_folder(folder, names, 1000)
