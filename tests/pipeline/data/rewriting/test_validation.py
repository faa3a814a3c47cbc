from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.data.rewriting.chat import Reply
from pipeline.data.rewriting.validation import Invalid, Limits, check, count_words
from tests.factories.clips import clip_values

KNOWN = """kind: speech
who: a woman
language: British English
pace: quickly
tempo: around 120 BPM
title: "Morning Song"
A woman speaks quickly in British English."""
LIMITS = Limits(language="en", min_words=3, max_words=30, known=KNOWN)
CLIP = clip_values(
    clip_id="corpus/spk01_utt0042",
    speaker="corpus/p225",
    uri="/data/wavs/spk01_utt0042.wav",
    transcript="The quick brown fox jumps over the lazy dog",
)


def reason(text: str, **given) -> Invalid | None:
    return check(Reply(text), replace(LIMITS, **given), CLIP)[1]


@pytest.mark.parametrize(
    "text",
    [
        "A woman talks fast in British English.",
        "Fast English speech, female voice.",
        "Say it quickly, in a woman's voice, at around 120 BPM.",
        'A piece called "Morning Song", hummed by a woman.',
        "She talks quickly; it's British English.",
        "The singers' tone is warm, the notes of the piano are short.",
        "Great gusts of wind, then certainly more of the same.",
    ],
)
def test_sound_answers_are_taken(text):
    assert check(Reply(text), LIMITS, CLIP) == (text, None)


def test_thoughts_and_outer_quotes_are_taken_off():
    reply = Reply('<think>\nShe is fast.\n</think>\n\n"A woman talks fast."')
    assert check(reply, LIMITS, CLIP) == ("A woman talks fast.", None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "empty"),
        ("  \n ", "empty"),
        ('""', "empty"),
        ("A woman talks.\nShe is fast.", "not_one_paragraph"),
        ("A woman talks.\u2028She is fast.", "not_one_paragraph"),
        ("**A woman** talks fast.", "markup"),
        ("- A woman talks fast.", "markup"),
        ("1. A woman talks fast.", "markup"),
        ("# A woman talks fast", "markup"),
        ("A `woman` talks fast.", "markup"),
        ("A woman talks fast.<|im_end|>", "markup"),
        ("<p>A woman talks fast.</p>", "markup"),
        ("A woman [fast] talks.", "markup"),
        ('{"description": "A woman talks."}', "markup"),
        ("A woman talks\x07 fast.", "markup"),
        ("A woman \ufffd talks.", "markup"),
        ("<think>A woman talks fast", "markup"),
        ("Speech.", "too_short"),
        ("word " * 31, "too_long"),
        ("Here is a woman talking fast.", "meta_talk"),
        ("Here\u2019s the thing: a woman talks.", "meta_talk"),
        ("Sure, a woman talks fast.", "meta_talk"),
        ("Description: a woman talks fast.", "meta_talk"),
        ("A woman talks fast, as requested.", "meta_talk"),
        ("The draft says that a woman talks.", "meta_talk"),
        ("I'm sorry, I can't help with that.", "refusal"),
        ("I cannot listen to audio.", "refusal"),
        ("As an AI I do not hear.", "refusal"),
        ("A woman talks, from take_12.wav.", "leak"),
        ("A woman talks, see https://example.org.", "leak"),
        ("A woman talks, mail her at a@b.org.", "leak"),
        ("A woman talks in /data/wavs/one.", "leak"),
        ("A woman p225 talks fast.", "leak"),
        ("A woman reads spk01_utt0042 fast.", "leak"),
        ("A woman talks, id 3f2a9c1b77.", "leak"),
        ("A woman says the QUICK, brown fox.", "transcript"),
        ('A woman says "hello there" quickly.', "invented_quote"),
        ("A woman says 'hello there' quickly.", "invented_quote"),
        ("A woman says \u201cgood morning\u201d quickly.", "invented_quote"),
        ("A woman talks at 140 BPM.", "invented_fact"),
        ("A woman talks quickly in French.", "invented_fact"),
        ("A woman talks quickly in American English.", "invented_fact"),
        ("A man talks quickly.", "invented_fact"),
        ("He talks quickly in English.", "invented_fact"),
        ("Eine Frau spricht schnell und mit Ausdruck.", "wrong_language"),
        ("女人用英语快速地说话。", "wrong_language"),
        ("Быстрая английская речь женщины.", "wrong_language"),
    ],
)
def test_answers_that_cannot_be_used_say_why(text, expected):
    assert reason(text) == expected


def test_cut_off_answer_is_not_used():
    assert check(Reply("A woman talks", is_cut_off=True), LIMITS, CLIP)[1] == Invalid.CUT_OFF


def test_other_languages_are_judged_by_their_own_words():
    german = "Eine Frau spricht schnell und mit viel Ausdruck."
    assert reason(german, language="de") is None
    assert reason("A woman speaks quickly with the voice of a child.", language="de") == (
        "wrong_language"
    )
    assert reason("一位女士用英语快速地说话。", language="zh") is None
    assert reason("Женщина быстро говорит.", language="ru") is None
    assert reason("امرأة تتحدث بسرعة.", language="ar") is None


def test_captions_may_state_new_facts_but_no_quotes():
    assert reason("A man speaks French over 3 drum hits.", known=None) is None
    assert reason('A man says "bonjour".', known=None) == "invented_quote"


def test_plain_file_name_gives_nothing_away():
    clip = clip_values(clip_id="corpus/rain", uri="/data/rain.wav", modality="sound")
    limits = replace(LIMITS, known="kind: sound\nRain falls.")
    assert check(Reply("Rain falls steadily."), limits, clip)[1] is None


def test_words_are_counted_in_scripts_without_spaces():
    assert count_words("A dog barks, twice - loudly.") == 5
    assert count_words("一位女士快速地说话") == 4
    assert count_words("BPM は速い") == 2
    assert count_words("ผู้หญิงพูดเร็ว") >= 4
