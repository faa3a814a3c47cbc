"""Whether a text can be in the language of its tag: by script and by function words.

It answers only where the evidence is strong, and is no language detector: a language that it does
not know, or a short text, is believed.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import cache

_MIN_LETTERS = 12
"""Number of letters below which the script of a text is not judged."""
_MIN_SCRIPT_SHARE = 0.9
_MIN_WORDS = 8
"""Number of words below which a text in the right script is not judged."""
_MIN_OTHER_SHARE = 0.35
_TIMES_OWN = 4  # languages share a few words: `was`, `in`, `no`
_MIN_LETTERS_ASKED = 4
_MIN_SCRIPT_SHARE_ASKED = 0.5  # names and titles in another script are allowed
_MIN_WORDS_ASKED = 4
_MIN_OTHER_SHARE_ASKED = 0.25
_TIMES_OWN_ASKED = 2

_OTHER_SCRIPTS = {
    "am": "ETHIOPIC",
    "ar": "ARABIC",
    "be": "CYRILLIC",
    "bg": "CYRILLIC",
    "bn": "BENGALI",
    "el": "GREEK",
    "fa": "ARABIC",
    "gu": "GUJARATI",
    "he": "HEBREW",
    "hi": "DEVANAGARI",
    "hy": "ARMENIAN",
    "ja": "CJK HIRAGANA KATAKANA",
    "ka": "GEORGIAN",
    "km": "KHMER",
    "kn": "KANNADA",
    "ko": "HANGUL CJK",
    "lo": "LAO",
    "ml": "MALAYALAM",
    "mr": "DEVANAGARI",
    "my": "MYANMAR",
    "ne": "DEVANAGARI",
    "pa": "GURMUKHI ARABIC",
    "ru": "CYRILLIC",
    "si": "SINHALA",
    "ta": "TAMIL",
    "te": "TELUGU",
    "th": "THAI",
    "uk": "CYRILLIC",
    "ur": "ARABIC",
    "yue": "CJK BOPOMOFO",
    "zh": "CJK BOPOMOFO",
}
"""Scripts of languages that are not written in Latin letters; romanised text is believed too."""
_LATIN = frozenset(
    [
        "ca",
        "cs",
        "cy",
        "da",
        "de",
        "en",
        "es",
        "et",
        "eu",
        "fi",
        "fr",
        "ga",
        "gl",
        "hr",
        "hu",
        "id",
        "is",
        "it",
        "lt",
        "lv",
        "mt",
        "nb",
        "nl",
        "nn",
        "no",
        "pl",
        "pt",
        "ro",
        "sk",
        "sl",
        "sq",
        "sv",
        "sw",
        "tl",
        "tr",
        "vi",
    ]
)
"""Languages that are written in Latin letters alone."""

_FUNCTION_WORDS = {
    "de": "der die das und ist nicht ein eine einen einem einer zu den dem mit von auf für im sich "
    "auch als an es aus bei nach wie oder aber wenn war wird sind hat ich du er sie wir ihr dass "
    "noch nur so über um was zum zur",
    "en": "a an the and of to is was that it for with he she his her on at by this had not but "
    "from you which or we were been have has are be as an there their would what when who will "
    "more if out so said my him your i in",
    "es": "el la los las un una unos unas de del que y es en por con para no se lo su sus al como "
    "más pero le ya o este esta sí porque cuando muy sin sobre también me hasta hay donde quien "
    "desde todo nos era está son",
    "fr": "le la les un une des de du et est en que qui dans pour pas ne sur se ce il elle au aux "
    "avec par plus son sa ses mais ou où nous vous ils je tu on était sont cette comme lui leur "
    "être fait si tout y",
    "it": "il lo la i gli le un una di del della dei delle che e è in per con non si al alla da "
    "dal come più ma anche sono era ha nel nella su se questo questa suo sua o ci mi io lui lei "
    "noi quando dove tutto",
    "nl": "de het een en van is dat die in te niet op met voor zijn aan er ook als maar om hij zij "
    "ze wij door bij naar nog wel wat uit kan dan was heeft hebben werd deze dit ik je over of",
    "pl": "i w na z się nie do to że jest o po jak za od przez przy ale czy już tylko co dla był "
    "była było być są ten ta tak jego jej ich który która które może a gdy",
    "pt": "o a os as um uma de do da dos das que e é em no na nos nas por para com não se mais "
    "como mas foi ao ele ela seu sua ou quando muito há já eu também só pelo pela isso era são",
    "sv": "och i att det som en på är av för den med till inte har de ett om var jag han hon vi "
    "men sig så från kan när nu eller också ut över vid ska efter upp där",
}
_WORDS = re.compile(r"[^\W\d_]+")


def language_mismatch(transcript: str, language: str) -> str:
    """Why a transcript cannot be in a language; empty if it can.

    Args:
        transcript: The words.
        language: BCP 47 tag.
    """
    primary, *subtags = language.lower().replace("_", "-").split("-")
    return _foreign_script(transcript, primary, subtags) or _foreign_words(transcript, primary)


def is_other_language(text: str, language: str) -> bool:
    """Whether a text is clearly in another language than the requested one.

    Stricter than `language_mismatch`: short texts are judged too, and romanised ones are not in
    the language. A rejected answer costs nothing, a rejected transcript a clip.

    Args:
        text: What came back.
        language: BCP 47 tag of the requested language.
    """
    primary, *subtags = language.lower().replace("_", "-").split("-")
    scripts = Counter(_script(c) for c in text if c.isalpha())
    allowed = ["LATIN"] if "latn" in subtags else _OTHER_SCRIPTS.get(primary, "LATIN").split()
    is_judged = primary in _LATIN or primary in _OTHER_SCRIPTS
    if not is_judged or scripts.total() < _MIN_LETTERS_ASKED:
        return False
    if sum(scripts[name] for name in allowed) < _MIN_SCRIPT_SHARE_ASKED * scripts.total():
        return True
    words = _WORDS.findall(unicodedata.normalize("NFC", text.lower()))
    if primary not in _FUNCTION_WORDS or len(words) < _MIN_WORDS_ASKED:
        return False
    own = _share(words, primary)
    share = max(_share(words, name) for name in _FUNCTION_WORDS if name != primary)
    return share >= max(_MIN_OTHER_SHARE_ASKED, _TIMES_OWN_ASKED * own)


def _foreign_script(transcript: str, primary: str, subtags: list[str]) -> str:
    if any(len(subtag) == 4 and subtag.isalpha() for subtag in subtags):
        return ""  # the tag names a script of its own
    allowed = _OTHER_SCRIPTS.get(primary, "").split()
    if primary not in _LATIN and not allowed:
        return ""
    scripts = Counter(_script(c) for c in transcript if c.isalpha())
    foreign = Counter(
        {name: n for name, n in scripts.items() if name not in allowed and name != "LATIN"}
    )
    total, count = scripts.total(), foreign.total()
    if total < _MIN_LETTERS or count < _MIN_SCRIPT_SHARE * total:
        return ""
    return f"{count} of {total} letters are {foreign.most_common(1)[0][0].capitalize()}"


def _foreign_words(transcript: str, primary: str) -> str:
    if primary not in _FUNCTION_WORDS:
        return ""
    words = _WORDS.findall(unicodedata.normalize("NFC", transcript.lower()))
    if len(words) < _MIN_WORDS:
        return ""
    own = _share(words, primary)
    other, share = max(
        ((name, _share(words, name)) for name in _FUNCTION_WORDS if name != primary),
        key=lambda item: item[1],
    )
    if share < max(_MIN_OTHER_SHARE, _TIMES_OWN * own):
        return ""
    return (
        f"of {len(words)} words {share:.0%} are function words of {other!r}, {own:.0%} of its own"
    )


def _share(words: list[str], language: str) -> float:
    known = _function_words(language)
    return sum(word in known for word in words) / len(words)


@cache
def _function_words(language: str) -> frozenset[str]:
    return frozenset(_FUNCTION_WORDS[language].split())


@cache
def _script(letter: str) -> str:
    return unicodedata.name(letter, "?").split(" ")[0].split("-")[0]
