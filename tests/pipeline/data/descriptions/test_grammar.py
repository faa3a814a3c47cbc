from __future__ import annotations

import random

import pytest

from pipeline.data.descriptions.grammar import (
    Grammar,
    article,
    fill,
    finish,
    join_words,
    num_subjects,
)


def texts(rules: dict, slots: dict, count: int = 200) -> set[str]:
    rng, grammar = random.Random(0), Grammar(rules)
    found = (grammar.write("start", slots, rng) for _ in range(count))
    return {sentence.text for sentence in found if sentence}


def test_alternative_with_a_missing_slot_is_never_chosen():
    rules = {"start": ("plain", "with {missing}", "<inner>"), "inner": ("{missing}", "also plain")}
    assert texts(rules, {}) == {"Plain", "Also plain"}


def test_slot_without_phrases_counts_as_missing():
    assert texts({"start": ("a {b}", "c")}, {"b": ()}) == {"C"}


def test_a_grammar_without_a_usable_alternative_gives_none():
    assert Grammar({"start": ("{a}",)}).write("start", {}, random.Random(0)) is None


def test_optional_part_comes_and_goes_and_never_without_its_slot():
    rules = {"start": ("rain[, {level}][, <deep>].",), "deep": ("{gone}",)}
    assert texts(rules, {"level": ("loud",)}) == {"Rain.", "Rain, loud."}


def test_one_fact_is_stated_once():
    rules = {"start": ("{tone} and {tone_adjective}", "{tone} only", "{tone} or {tone}")}
    assert texts(rules, {"tone": ("flat",), "tone_adjective": ("even",)}) == {"Flat only"}


def test_form_keeps_the_slots_open():
    sentence = Grammar({"start": ("a(n) {x} dog",)}).write(
        "start", {"x": ("old",)}, random.Random(0)
    )
    assert sentence.text == "An old dog"
    assert sentence.form == "a(n) {x} dog"


def test_same_generator_state_gives_the_same_text():
    grammar = Grammar({"start": tuple(f"text {i}[ {{x}}]" for i in range(50))})
    runs = [
        [grammar.write("start", {"x": ("y", "z")}, rng).text for _ in range(20)]
        for rng in (random.Random(3), random.Random(3))
    ]
    assert runs[0] == runs[1]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("apple", "an"), ("dog", "a"), ("hour", "an"), ("house", "a"), ("university", "a"),
        ("unusual", "an"), ("European", "a"), ("one", "a"), ("8-bit", "an"), ("11", "an"),
        ("FM", "an"), ("ukulele", "a"), ("umbrella", "an"), ("used", "a"), ("ugly", "an"),
        ("honest", "an"), ("uplifting", "an"), ("unit", "a"), ("uninteresting", "an"),
        ("Ukrainian", "a"), ("Uyghur", "a"), ("Urdu", "an"), ("Upper", "an"), ("utopian", "a"),
        ("FX", "an"), ("MP3", "an"), ("R", "an"), ("UFO", "a"), ("LOUD", "a"), ("808", "an"),
        ("80", "an"), ("100", "a"), ("18", "an"), ("1", "a"), ("hourly", "an"), ("eerie", "an"),
        ("x-ray", "an"), ("f-sharp", "an"), ("S-Bahn", "an"), ("u-bahn", "a"), ("b-side", "a"),
        ("T-shirt", "a"), ("one-shot", "a"), ("hi-hat", "a"), ("FM-radio", "an"), ("x", "a"),
    ],
)  # fmt: skip
def test_article_follows_the_sound(word, expected):
    assert article(word) == expected


def test_finish_mends_spaces_articles_and_capitals():
    assert finish("  a(n)  old  man , a(n) dog . it barks") == "An old man, a dog. It barks"
    assert finish("a(n) x-ray, a(n) (hi-hat) beat") == "An x-ray, a (hi-hat) beat"
    assert finish('"quoted title", a(n) piece') == '"Quoted title", a piece'


def test_words_are_joined_as_people_do():
    assert [join_words(list("abc")[:n]) for n in range(4)] == ["", "a", "a and b", "a, b and c"]


def test_slot_that_covers_several_subjects_stands_with_none_of_them():
    rules = {"start": ("{tags}, {mood}", "{tags}", "{mood} {genre}")}
    grammar = Grammar(rules, {"tags": ("tags", "mood", "genre")})
    slots = {"tags": ("sad folk",), "mood": ("sad",), "genre": ("folk",)}
    rng = random.Random(0)
    found = {grammar.write("start", slots, rng).text for _ in range(100)}
    forms = {grammar.write("start", slots, rng).form for _ in range(100)}
    assert found == {"Sad folk"}
    assert forms == {"{tags}", "{mood} {genre}"}


def test_form_is_drawn_before_it_is_filled():
    rng = random.Random(0)
    slots = {"x": ("old", "young")}
    form = Grammar({"start": ("a(n) {x} dog",)}).draw("start", slots, rng)
    assert num_subjects(form) == 1
    assert {fill(form, slots, rng).text for _ in range(20)} == {"An old dog", "A young dog"}
