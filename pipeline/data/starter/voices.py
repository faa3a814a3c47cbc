"""Speakers of the starter corpus: the same name is always the same voice."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EspeakVoice:
    """A voice of eSpeak NG with its habits.

    Attributes:
        name: `<language>+<variant>`.
        words_per_minute: Usual rate.
        pitch: Usual pitch, 0 to 100; 50 is the variant's own.
        pitch_range: Usual liveliness, 0 to 100; 50 is the variant's own.
    """

    name: str
    words_per_minute: int
    pitch: int = 50
    pitch_range: int = 50


@dataclass(frozen=True)
class FliteVoice:
    """A voice of Flite with its habits.

    Attributes:
        name: Voice of Flite.
        pitch_hz: Usual mean pitch that Flite is asked for; None where a voice has a fixed pitch.
        size: Length of the vocal tract relative to the voice's own. Below 1 moves formants and
            pitch up together, as of a smaller person: `pitch_hz` is heard divided by `size`.
        stretch: Usual duration of the sounds relative to the voice's own.
        pitch_range_hz: Standard deviation of the pitch; None where a voice has a fixed one.
    """

    name: str
    pitch_hz: float | None = None
    size: float = 1.0
    stretch: float = 1.0
    pitch_range_hz: float | None = None


@dataclass(frozen=True)
class Speaker:
    """A voice with a name and what a listener would say of it.

    Attributes:
        name: Stable id.
        language: BCP 47 tag.
        sex: female or male.
        accent: Adjective of the accent or the language, e.g. `Scottish`.
        timbre: What the voice is like: adjectives before `voice`, without article.
        voice: How the engine makes it.
    """

    name: str
    language: str
    sex: str
    accent: str
    timbre: str
    voice: EspeakVoice | FliteVoice

    @property
    def engine(self) -> str:
        """Name of the engine that has the voice: `espeak` or `flite`."""
        return "flite" if isinstance(self.voice, FliteVoice) else "espeak"

    @property
    def can_be_lively(self) -> bool:
        """Whether the engine can widen the range of the voice's pitch."""
        return isinstance(self.voice, EspeakVoice) or self.voice.pitch_range_hz is not None


def _espeak(
    name: str, accent: str, sex: str, timbre: str, voice: EspeakVoice, language: str = "en"
) -> Speaker:
    return Speaker(name, language, sex, accent, timbre, voice)


def _flite(name: str, accent: str, sex: str, timbre: str, voice: FliteVoice) -> Speaker:
    return Speaker(name, "en", sex, accent, timbre, voice)


_WOMAN, _MAN = "female", "male"

SPEAKERS = (
    _espeak("ada", "American", _WOMAN, "synthetic", EspeakVoice("en-us+f2", 158, 50, 55)),
    _espeak("bea", "British", _WOMAN, "high synthetic", EspeakVoice("en+f3", 150, 58, 50)),
    _espeak("cleo", "American", _WOMAN, "buzzing", EspeakVoice("en-us+belinda", 165, 50, 45)),
    _espeak(
        "dora", "British", _WOMAN, "lively synthetic", EspeakVoice("en-gb-x-rp+f5", 145, 36, 60)
    ),
    _espeak("abel", "American", _MAN, "synthetic", EspeakVoice("en-us+john", 155, 50, 50)),
    _espeak("ben", "British", _MAN, "low synthetic", EspeakVoice("en+m6", 148, 42, 45)),
    _espeak("carl", "American", _MAN, "buzzing", EspeakVoice("en-us+Hugo", 160, 60, 60)),
    _espeak(
        "dean", "Scottish", _MAN, "synthetic", EspeakVoice("en-gb-scotland+edward", 152, 58, 50)
    ),
    _espeak("anke", "German", _WOMAN, "lively synthetic", EspeakVoice("de+f2", 150, 48, 55), "de"),
    _espeak("bernd", "German", _MAN, "synthetic", EspeakVoice("de+m3", 145, 50, 45), "de"),
    _espeak("clara", "German", _WOMAN, "buzzing", EspeakVoice("de+belinda", 158, 46, 60), "de"),
    _espeak("aline", "French", _WOMAN, "synthetic", EspeakVoice("fr+f3", 155, 46, 50), "fr"),
    _espeak("bruno", "French", _MAN, "synthetic", EspeakVoice("fr+m4", 150, 56, 50), "fr"),
    _espeak("alba", "Spanish", _WOMAN, "lively synthetic", EspeakVoice("es+f2", 160, 56, 60), "es"),
    _espeak("blas", "Spanish", _MAN, "synthetic", EspeakVoice("es-419+edward", 155, 44, 50), "es"),
    _espeak("anna", "Italian", _WOMAN, "lively synthetic", EspeakVoice("it+f5", 155, 44, 60), "it"),
    _espeak("carlo", "Italian", _MAN, "synthetic", EspeakVoice("it+m3", 150, 58, 50), "it"),
    _espeak("ana", "Portuguese", _WOMAN, "synthetic", EspeakVoice("pt-br+f2", 155, 44, 50), "pt"),
    _espeak("bento", "Portuguese", _MAN, "synthetic", EspeakVoice("pt-br+m6", 150, 48, 55), "pt"),
    _flite("emma", "American", _WOMAN, "clear", FliteVoice("slt", 174)),
    _flite("grace", "American", _WOMAN, "low, warm", FliteVoice("slt", 142, 1.08, 1.05)),
    _flite("olivia", "American", _WOMAN, "bright, high", FliteVoice("slt", 205, 0.94, 0.95)),
    _flite("zoe", "American", _WOMAN, "very high, childlike", FliteVoice("slt", 235, 0.92)),
    _flite("james", "American", _MAN, "deep, calm", FliteVoice("rms")),
    _flite("henry", "American", _MAN, "very deep, dark", FliteVoice("rms", size=1.14)),
    _flite("lucas", "American", _MAN, "light, youthful", FliteVoice("rms", size=0.86)),
    _flite("angus", "Scottish", _MAN, "firm", FliteVoice("awb", 132)),
    _flite("duncan", "Scottish", _MAN, "low, gruff", FliteVoice("awb", 104, 1.08, 1.05)),
    _flite("ewan", "Scottish", _MAN, "high, thin", FliteVoice("awb", 158, 0.92)),
    _flite("rob", "American", _MAN, "robotic", FliteVoice("kal16", 92, 1.0, 1.1, 11)),
    _flite("max", "American", _MAN, "high, robotic", FliteVoice("kal16", 124, 0.92, 1.1, 13)),
)
"""Everyone who speaks in the corpus."""
