from __future__ import annotations

import pytest

from pipeline.data.descriptions.facts import (
    clean_caption,
    clean_label,
    clean_title,
    facts_of,
    names_a_file,
    split_sentences,
)
from pipeline.data.descriptions.language_names import language_name
from pipeline.data.descriptions.vocabulary import noun_phrase
from tests.factories.clips import clip_values


@pytest.mark.parametrize(
    ("tag", "label"),
    [
        ("church_bells", "church bells"),
        ("ChurchBells", "church bells"),
        ("  Rain. ", "rain"),
        ("robot1", "robot"),
        ("FM synth", "FM synth"),
        ("/m/04rlf", None),
        ("1-172649-B-40.ogg", None),
        ("take one.wav", None),
        ("https://example.org/x", None),
        ("3f2a9c1b77", None),
        ("123", None),
        ("", None),
        ("one two three four five six seven eight nine", None),
    ],
)
def test_labels_are_words_or_nothing(tag, label):
    assert clean_label(tag) == label


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("Clair de Lune", "Clair de Lune"),
        ('The "Storm"', "The 'Storm'"),
        ("Bird Whistling, Robin, Single, 13.wav / Somebody", "Bird Whistling, Robin, Single"),
        ("boss_loop_2", None),
        ("track01.mp3", None),
        ("a1b2c3d4e5f6", None),
        (None, None),
    ],
)
def test_titles_are_titles_or_nothing(title, expected):
    assert clean_title(title) == expected


def test_captions_become_whole_sentences_without_file_names():
    assert clean_caption(" a dog  barks\n", 20) == "A dog barks."
    assert clean_caption("Recorded as dog_12.wav. A dog barks!", 20) == "A dog barks!"
    assert clean_caption("dog.wav", 20) is None
    assert clean_caption("...", 20) is None
    assert clean_caption("Drums , bass .", 20) == "Drums, bass."
    assert clean_caption("Loop boss_fight_theme here", 20) == "Loop boss fight theme here."


def test_long_captions_are_cut_at_a_sentence():
    text = "One two three. Four five six. Seven eight nine."
    assert clean_caption(text, 7) == "One two three. Four five six."
    assert clean_caption("word " * 50, 5) == "Word word word word word."


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Mr. Smith plays the piano. He hums.", ["Mr. Smith plays the piano.", "He hums."]),
        ("It barks vs. a cat! Then rain.", ["It barks vs. a cat!", "Then rain."]),
        ("A song by J. S. Bach (e.g. a fugue). Slow.", ["A song by J. S. Bach (e.g. a fugue).",
                                                        "Slow."]),
        ("Bells, horns, etc. ring out. Loud.", ["Bells, horns, etc. ring out.", "Loud."]),
        ("Bells, horns, etc. The mood is calm.", ["Bells, horns, etc.", "The mood is calm."]),
        ("A track feat. Dr. Dre at approx. 90 bpm.", ["A track feat. Dr. Dre at approx. 90 bpm."]),
        ("a dog barks. a cat? yes", ["a dog barks.", "a cat?", "yes"]),
        ("This is R&B. It is on vinyl. It hisses.", ["This is R&B.", "It is on vinyl.",
                                                     "It hisses."]),
        ("", [""]),
    ],
)  # fmt: skip
def test_sentences_do_not_end_at_abbreviations(text, sentences):
    assert split_sentences(text) == sentences


@pytest.mark.parametrize(
    ("label", "phrase", "is_plural"),
    [
        ("dog", "a dog", False),
        ("engine", "an engine", False),
        ("church bells", "church bells", True),
        ("rain", "rain", False),
        ("glass breaking", "glass breaking", False),
        ("crying baby", "a crying baby", False),
        ("glass", "glass", False),
        ("a bird", "a bird", False),
        ("flock of birds", "a flock of birds", False),
        ("hour glass", "hour glass", False),
        ("children playing", "children playing", False),
        ("people", "people", True),
        ("brushing teeth", "brushing teeth", False),
        ("barking dogs", "barking dogs", True),
        ("pouring water", "pouring water", False),
        ("opening door", "an opening door", False),
        ("telephone ring", "a telephone ring", False),
        ("chirp and tweet", "a chirp and a tweet", True),
        ("rain and church bells", "rain and church bells", True),
        ("FM radio", "an FM radio", False),
        ("x-ray machine", "an x-ray machine", False),
    ],
)
def test_labels_take_the_article_they_need(label, phrase, is_plural):
    found = noun_phrase(label)
    assert (found.text, found.is_plural) == (phrase, is_plural)


@pytest.mark.parametrize(
    ("tag", "name"),
    [("de", "German"), ("en-GB", "British English"), ("en-xx", "English"), ("yue", "Cantonese"),
     ("zh_tw", "Taiwanese Mandarin"), ("ckb", "Central Kurdish"), ("nan-tw", "Taiwanese Hokkien"),
     ("qqq", None), (None, None), ("", None)],
)  # fmt: skip
def test_languages_have_names(tag, name):
    assert language_name(tag) == name


def test_pitch_is_judged_by_the_sex_of_the_voice():
    deep, high = (
        facts_of(clip_values(speaker_sex=sex), {"pitch_median_hz": 160.0}, max_words=80)
        for sex in ("female", "male")
    )
    assert "deep" in deep.slots["pitch"]
    assert "high" in high.slots["pitch"]


def test_weak_beat_has_no_tempo_words():
    clip = clip_values(modality="music")
    measured = {"tempo_bpm": 128.0, "beat_strength": 0.1}
    assert not {"tempo", "bpm", "tempo_word"} & facts_of(clip, measured, max_words=80).slots.keys()
    measured["beat_strength"] = 0.6
    assert facts_of(clip, measured, max_words=80).slots["bpm"][0] == "around 128 BPM"


def test_caption_that_only_repeats_the_title_is_no_caption():
    clip = clip_values(modality="music", title="Slow Song", captions=["slow  song"])
    assert facts_of(clip, {}, max_words=80).captions == ()


def test_singing_is_its_own_kind_of_text_whatever_the_modality():
    for modality in ("speech", "music"):
        clip = clip_values(modality=modality, is_singing=True)
        assert facts_of(clip, {}, max_words=80).modality == "singing"


@pytest.mark.parametrize("said", [{"captions": ["A slow tune."]}, {"tags": ["slow tempo"]}])
def test_measurements_do_not_contradict_captions(said):
    measured = {"tempo_bpm": 150.0, "beat_strength": 0.9, "level_dbfs": -5.0, "duration_s": 5.0}
    slots = facts_of(clip_values(modality="music", **said), measured, max_words=80).slots
    assert slots.get("tempo", ("slow",)) == slots.get("tempo_word", ("slow",)) == ("slow",)
    assert "bpm" not in slots
    assert "level" in slots


def test_label_with_several_names_is_called_by_one_of_them_at_a_time():
    clip = clip_values(
        modality="sound", tags=["Vehicle horn, car horn, honking", "Coin (dropping)"]
    )
    slots = facts_of(clip, {}, max_words=80).slots
    assert slots["source"] == (
        "a vehicle horn and a coin", "a car horn and a coin", "honking and a coin"
    )  # fmt: skip


def test_labels_that_name_a_source_say_what_it_does():
    slots = facts_of(clip_values(modality="sound", tags=["dog", "rain"]), {}, max_words=80).slots
    assert slots["source_clause"] == ("a dog barks and rain falls",)
    slots = facts_of(clip_values(modality="sound", tags=["dog", "violin"]), {}, max_words=80).slots
    assert "source_clause" not in slots


def test_tags_of_music_stand_where_they_fit():
    tags = [
        "acoustic guitar",
        "sad",
        "soft female vocal",
        "folk music",
        "no percussion",
        "slow tune",
    ]
    slots = facts_of(clip_values(modality="music", tags=tags), {}, max_words=80).slots
    assert slots["instruments"] == ("acoustic guitar and a soft female vocal",)
    assert slots["genre"] == ("folk",)
    assert slots["mood"] == ("sad",)
    sung = clip_values(modality="music", tags=tags, is_singing=True)
    assert facts_of(sung, {}, max_words=80).slots["instruments"] == ("acoustic guitar",)


def test_words_for_a_pitch_are_not_said_of_a_person():
    slots = facts_of(clip_values(speaker_sex="male"), {"pitch_median_hz": 80.0}, max_words=80).slots
    assert all("voiced" in word for word in slots["pitch_person"])
    assert not {"dark", "bright"} & set(slots["pitch"])


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("take_12.wav", True), ("see https://example.org", True), ("in /data/wavs", True),
        ("write to a@b.org", True), ("id 3f2a9c1b77", True), ("spk_01", True),
        ("R&B and/or soul, 120 BPM, in 1985", False), ("a 50/50 mix", False),
    ],
)  # fmt: skip
def test_files_addresses_and_identifiers_are_seen_in_a_text(text, is_one):
    assert names_a_file(text) is is_one


def test_a_key_is_stated_if_it_is_certain_and_no_caption_states_another():
    measured = {"key_number": 21.0, "key_confidence": 0.3}
    clip = clip_values(modality="music", tags=["piano"])
    assert facts_of(clip, measured, max_words=80).slots["key"] == ("A minor",)
    for row, values in (
        (clip, measured | {"key_confidence": 0.1}),
        (clip_values(modality="sound", tags=["piano"]), measured),
        (clip | {"captions": ["A piece in C major."]}, measured),
        (clip, {}),
    ):
        assert "key" not in facts_of(row, values, max_words=80).slots


@pytest.mark.parametrize(
    ("tag", "slot", "phrase"),
    [
        ("slow tempo", "tempo", "slow"),
        ("98 bpm", "bpm", "around 98 BPM"),
        ("key of e flat major", "key", "E flat major"),
        ("poor audio quality", "recording_kind", "low-quality"),
        ("live performance", "recording_kind", "live"),
        ("love song", "kind", "love song"),
        ("happy mood", "mood", "happy"),
        ("relaxing music", "mood", "relaxing"),
        ("alternative rock", "genre", "alternative rock"),
        ("korean pop", "genre", "Korean pop"),
        ("e-guitar", "instruments", "electric guitar"),
        ("genre: hip hop", "genre", "hip hop"),
        ("instrument: computer", "instruments", "a computer"),
        ("mood: film", "theme", "for a film"),
        ("mood: dream", "mood", "dreamy"),
    ],
)
def test_tags_of_music_fill_the_slot_of_their_words_or_category(tag, slot, phrase):
    clip = clip_values(modality="music", tags=[tag])
    measured = {"tempo_bpm": 150.0, "beat_strength": 0.9, "key_number": 3.0, "key_confidence": 0.4}
    assert facts_of(clip, measured, max_words=80).slots[slot][0] == phrase


def test_tags_for_a_voice_take_the_place_of_its_measured_pitch():
    clip = clip_values(tags=["low gruff voice"], speaker_sex="male")
    slots = facts_of(clip, {"pitch_median_hz": 180.0}, max_words=80).slots
    assert slots["style"] == ("low gruff",)
    assert not {"pitch", "pitch_person"} & slots.keys()


def test_regional_english_has_an_accent():
    slots = facts_of(clip_values(language="en-us"), {}, max_words=80).slots
    assert slots["language_accent"] == ("an American accent",)
    assert "language_accent" not in facts_of(clip_values(language="pt-br"), {}, max_words=80).slots


def test_rooms_are_said_of_speech_that_is_dry_or_reverberant():
    def room(decay_time_s, **row):
        facts = facts_of(clip_values(**row), {"decay_time_s": decay_time_s}, max_words=80)
        return facts.slots.get("room", ("",))[0]

    assert room(0.15) == "in a dry room"
    assert room(0.4) == ""
    assert room(0.8) == "in a reverberant room"
    assert room(2.0) == "in a large, echoing space"
    assert room(0.8, modality="sound") == ""
    assert room(0.8, captions=["He speaks in a big hall."]) == ""


def test_a_pitch_that_a_caption_tells_is_not_measured_again():
    clip = clip_values(captions=["A man with a deep voice speaks."], speaker_sex="male")
    facts = facts_of(clip, {"pitch_median_hz": 180.0, "snr_db": 50.0}, max_words=80)
    assert not {"pitch", "pitch_person"} & facts.slots.keys()
    assert facts.slots["recording"] == ("clean", "very clear")
