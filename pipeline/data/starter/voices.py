"""Speakers of the starter corpus: the same name is always the same voice."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Speaker:
    """A voice with its habits.

    Attributes:
        name: Stable id.
        language: BCP 47 tag.
        voice: Voice of the engine, `<language>+<variant>`.
        sex: female or male.
        words_per_minute: Usual rate.
        pitch: Usual pitch, 0 to 100; 50 is the variant's own.
        pitch_range: Usual liveliness, 0 to 100; 50 is the variant's own.
    """

    name: str
    language: str
    voice: str
    sex: str
    words_per_minute: int
    pitch: int = 50
    pitch_range: int = 50


SPEAKERS = (
    Speaker("ada", "en", "en-us+f2", "female", 158, 50, 55),
    Speaker("bea", "en", "en+f3", "female", 150, 58, 50),
    Speaker("cleo", "en", "en-us+belinda", "female", 165, 50, 45),
    Speaker("dora", "en", "en-gb-x-rp+f5", "female", 145, 36, 60),
    Speaker("abel", "en", "en-us+john", "male", 155, 50, 50),
    Speaker("ben", "en", "en+m6", "male", 148, 42, 45),
    Speaker("carl", "en", "en-us+Hugo", "male", 160, 60, 60),
    Speaker("dean", "en", "en-gb-scotland+edward", "male", 152, 58, 50),
    Speaker("anke", "de", "de+f2", "female", 150, 48, 55),
    Speaker("bernd", "de", "de+m3", "male", 145, 50, 45),
    Speaker("clara", "de", "de+belinda", "female", 158, 46, 60),
    Speaker("aline", "fr", "fr+f3", "female", 155, 46, 50),
    Speaker("bruno", "fr", "fr+m4", "male", 150, 56, 50),
    Speaker("alba", "es", "es+f2", "female", 160, 56, 60),
    Speaker("blas", "es", "es-419+edward", "male", 155, 44, 50),
    Speaker("anna", "it", "it+f5", "female", 155, 44, 60),
    Speaker("carlo", "it", "it+m3", "male", 150, 58, 50),
    Speaker("ana", "pt", "pt-br+f2", "female", 155, 44, 50),
    Speaker("bento", "pt", "pt-br+m6", "male", 150, 48, 55),
)
"""Everyone who speaks in the corpus."""
