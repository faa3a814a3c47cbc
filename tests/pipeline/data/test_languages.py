from __future__ import annotations

import numpy as np
import pytest

from pipeline.data.languages import language_mismatch
from pipeline.data.starter.sentences import compose

GERMAN = "Der alte Mann ging mit dem Hund durch den Wald, und es war schon dunkel."
ENGLISH = "It was the best of times, and there was nothing that he had not seen in the city."
FRENCH = "Elle ne savait pas que son frère était dans la maison avec les autres enfants."


@pytest.mark.parametrize(
    ("transcript", "language", "evidence"),
    [
        ("Съешь же ещё этих мягких французских булок", "en", "Cyrillic"),
        ("Съешь же ещё этих мягких французских булок", "de-AT", "Cyrillic"),
        ("敏捷的棕色狐狸跳过了懒狗的身体", "en-GB", "Cjk"),
        ("क्या आप मुझे रास्ता बता सकते हैं", "ru", "Devanagari"),
        (GERMAN, "en", "'de'"),
        (ENGLISH, "de", "'en'"),
        (FRENCH, "de", "'fr'"),
    ],
)
def test_plain_mismatch_is_told_with_its_evidence(transcript, language, evidence):
    assert evidence in language_mismatch(transcript, language)


@pytest.mark.parametrize(
    ("transcript", "language"),
    [
        (GERMAN, "de"),
        (ENGLISH, "en-us"),
        (FRENCH, "fr_FR"),
        ("素早い茶色の狐はのろまな犬を飛び越える", "ja"),
        ("ni hao, wo jiao li lei, hen gaoxing renshi ni", "zh"),
        ("Dobar dan, kako ste danas, gospodine Petroviću?", "sr"),
        ("Добар дан, како сте данас", "sr"),
        ("ⵜⴰⵎⴰⵣⵉⵖⵜ ⵜⴰⵎⴰⵣⵉⵖⵜ", "zgh"),
        ("O'zbek tilida so'zlashamiz va bugun kun yaxshi edi", "uz"),
        ("Съешь же ещё этих мягких булок", "en-cyrl"),
        ("seven", "de"),
        ("Les Misérables, le film de Tom Hooper", "en"),
        ("He said: Привет!", "en"),
        ("", "en"),
    ],
)
def test_whatever_is_in_doubt_is_believed(transcript, language):
    assert language_mismatch(transcript, language) == ""


@pytest.mark.parametrize("tag", ["de", "en", "es", "fr", "it", "pt"])
def test_true_tags_of_sentences_in_six_languages_are_believed(tag):
    generator = np.random.default_rng(0)
    for _ in range(50):
        text = compose("rich", tag, generator)
        assert language_mismatch(text, tag) == "", text
