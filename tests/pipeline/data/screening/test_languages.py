from __future__ import annotations

import numpy as np
import pytest

from pipeline.data.screening.languages import is_other_language, language_mismatch
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
def test_a_clear_mismatch_is_reported_with_its_evidence(transcript, language, evidence):
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
def test_uncertain_languages_are_accepted(transcript, language):
    assert language_mismatch(transcript, language) == ""


@pytest.mark.parametrize("tag", ["de", "en", "es", "fr", "it", "pt"])
def test_true_tags_of_sentences_in_six_languages_are_accepted(tag):
    generator = np.random.default_rng(0)
    for _ in range(50):
        text = compose("rich", tag, generator)
        assert language_mismatch(text, tag) == "", text


SENTENCES = {
    "en": "It is said that the rain in the north is cold.",
    "de": "Es wird gesagt, dass der Regen im Norden kalt ist und nicht aufhört.",
    "fr": "On dit que la pluie est froide dans le nord et sur les côtes.",
    "es": "Se dice que la lluvia en el norte es muy fría para los niños.",
    "it": "Si dice che la pioggia nel nord è molto fredda per i bambini.",
    "pt": "Diz-se que a chuva no norte é muito fria para as crianças.",
    "nl": "Men zegt dat de regen in het noorden niet warm is.",
    "ru": "Говорят, что дождь на севере холодный.",
    "el": "Λένε ότι η βροχή στο βορρά είναι κρύα.",
    "ar": "يقال إن المطر في الشمال بارد.",
    "he": "אומרים שהגשם בצפון קר.",
    "hi": "कहते हैं कि उत्तर में बारिश ठंडी होती है।",
    "zh": "据说北方的雨很冷。",
    "ja": "北の雨は冷たいと言われています。",
    "ko": "북쪽의 비는 차갑다고 한다.",
    "th": "ว่ากันว่าฝนทางเหนือเย็น",
}


@pytest.mark.parametrize("tag", SENTENCES)
def test_a_text_in_the_requested_language_is_distinguished_from_most_others(tag):
    found = {other for other in SENTENCES if is_other_language(SENTENCES[tag], other)}
    near = {"es": {"pt", "it"}, "pt": {"es", "it"}, "it": {"es", "pt"}, "zh": {"ja", "ko"}}
    assert tag not in found
    assert set(SENTENCES) - found - {tag} <= near.get(tag, set())


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("Rain.", "de"),
        ("...", "zh"),
        ("120 BPM", "ru"),
        ("Ok", "ru"),
        ("Sound of rain, loud, warm", "sw"),
        ("A loud dog, a loud cat", "en"),
        ("Piano, bass, drums, no voice, low quality", "en"),
        ("Dobar dan svima", "sr"),
        ("Добар дан свима", "sr"),
        ("一首很慢的 Jazz 歌", "zh-hant"),
    ],
)
def test_a_text_whose_language_is_uncertain_passes(text, tag):
    assert not is_other_language(text, tag)
