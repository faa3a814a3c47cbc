"""English names of languages by BCP 47 tag."""

from __future__ import annotations

_PAIRS = (
    "af=Afrikaans, am=Amharic, ar=Arabic, as=Assamese, az=Azerbaijani, be=Belarusian, "
    "bg=Bulgarian, bn=Bengali, bs=Bosnian, ca=Catalan, cs=Czech, cy=Welsh, da=Danish, "
    "de=German, el=Greek, en=English, eo=Esperanto, es=Spanish, et=Estonian, eu=Basque, "
    "fa=Persian, fi=Finnish, fil=Filipino, fr=French, fy=Frisian, ga=Irish, gd=Scottish Gaelic,"
    " gl=Galician, gu=Gujarati, ha=Hausa, he=Hebrew, hi=Hindi, hr=Croatian, hu=Hungarian, "
    "hy=Armenian, id=Indonesian, ig=Igbo, is=Icelandic, it=Italian, ja=Japanese, jv=Javanese, "
    "ka=Georgian, kk=Kazakh, km=Khmer, kn=Kannada, ko=Korean, ku=Kurdish, ky=Kyrgyz, la=Latin, "
    "lb=Luxembourgish, lg=Ganda, lo=Lao, lt=Lithuanian, lv=Latvian, mg=Malagasy, mi=Maori, "
    "mk=Macedonian, ml=Malayalam, mn=Mongolian, mr=Marathi, ms=Malay, mt=Maltese, my=Burmese, "
    "nb=Norwegian, ne=Nepali, nl=Dutch, nn=Norwegian, no=Norwegian, ny=Chichewa, oc=Occitan, "
    "or=Odia, pa=Punjabi, pl=Polish, ps=Pashto, pt=Portuguese, qu=Quechua, ro=Romanian, "
    "ru=Russian, rw=Kinyarwanda, sd=Sindhi, si=Sinhala, sk=Slovak, sl=Slovenian, sn=Shona, "
    "so=Somali, sq=Albanian, sr=Serbian, st=Sotho, su=Sundanese, sv=Swedish, sw=Swahili, "
    "ta=Tamil, te=Telugu, tg=Tajik, th=Thai, tk=Turkmen, tl=Tagalog, tn=Tswana, tr=Turkish, "
    "tt=Tatar, ug=Uyghur, uk=Ukrainian, ur=Urdu, uz=Uzbek, vi=Vietnamese, wo=Wolof, xh=Xhosa, "
    "yi=Yiddish, yo=Yoruba, yue=Cantonese, zh=Chinese, zu=Zulu, ab=Abkhaz, ast=Asturian, "
    "ba=Bashkir, bo=Tibetan, br=Breton, ceb=Cebuano, ckb=Central Kurdish, cv=Chuvash, "
    "dv=Dhivehi, ee=Ewe, fo=Faroese, ga=Irish, gn=Guarani, gsw=Swiss German, haw=Hawaiian, "
    "hsb=Upper Sorbian, ht=Haitian Creole, ia=Interlingua, kab=Kabyle, kmr=Northern Kurdish, "
    "lij=Ligurian, ln=Lingala, ltg=Latgalian, mhr=Meadow Mari, myv=Erzya, nan=Hokkien, "
    "om=Oromo, os=Ossetian, rm=Romansh, sah=Yakut, sat=Santali, sc=Sardinian, scn=Sicilian, "
    "skr=Saraiki, sm=Samoan, ti=Tigrinya, tig=Tigre, tok=Toki Pona, tw=Twi, zgh=Tamazight"
)

LANGUAGES = dict(pair.split("=") for pair in _PAIRS.split(", "))
"""Primary BCP 47 subtag to English name."""
REGIONAL = {
    "en-gb": "British English", "en-us": "American English", "en-au": "Australian English",
    "en-in": "Indian English", "en-ie": "Irish English", "en-nz": "New Zealand English",
    "en-za": "South African English", "en-ca": "Canadian English", "pt-br": "Brazilian Portuguese",
    "pt-pt": "European Portuguese", "es-mx": "Mexican Spanish", "es-419": "Latin American Spanish",
    "es-es": "European Spanish", "fr-ca": "Canadian French", "de-at": "Austrian German",
    "de-ch": "Swiss German", "zh-tw": "Taiwanese Mandarin", "zh-hk": "Cantonese",
    "zh-cn": "Mandarin Chinese", "cmn": "Mandarin Chinese", "ar-eg": "Egyptian Arabic",
    "ar-sa": "Saudi Arabic", "nl-be": "Flemish", "nan-tw": "Taiwanese Hokkien",
    "sr-latn": "Serbian", "bn-in": "Indian Bengali", "es-ar": "Argentinian Spanish",
}  # fmt: skip
"""Tags whose region has a name of its own."""


def language_name(tag: str | None) -> str | None:
    """English name of a language by its BCP 47 tag; None if it is not known."""
    if not tag:
        return None
    lower = tag.lower().replace("_", "-")
    return REGIONAL.get(lower) or LANGUAGES.get(lower.split("-")[0])
