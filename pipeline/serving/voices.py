"""Names of voices: those of the bundle, OpenAI's, and aliases."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pipeline.errors import SettingsError
from pipeline.serving.schemas import DEFAULT_VOICE

OPENAI_VOICES = (
    "alloy",
    "ash",
    "ballad",
    "cedar",
    "coral",
    "echo",
    "fable",
    "marin",
    "nova",
    "onyx",
    "sage",
    "shimmer",
    "verse",
)
"""Voice names of OpenAI's speech endpoint."""


def aliases_of(voices: Iterable[str], configured: Mapping[str, str]) -> dict[str, str]:
    """Further names of voices, each with the voice it stands for.

    Every name of OpenAI works: one that is neither a voice nor configured stands for a voice of the
    bundle, in turn, so that different names are different voices as far as there are some.

    Args:
        voices: Names of the bundle's voices.
        configured: Aliases of the settings.

    Raises:
        SettingsError: If an alias stands for a voice that is not there.
    """
    names = sorted(voices)
    known = {DEFAULT_VOICE, *names}
    for alias, voice in configured.items():
        if voice not in known:
            raise SettingsError(
                f"voice_aliases maps {alias!r} to {voice!r}, and there is no such voice; there is "
                f"{', '.join([DEFAULT_VOICE, *names])}"
            )
    others = [name for name in OPENAI_VOICES if name not in known and name not in configured]
    turns = names or [DEFAULT_VOICE]
    spread = {name: turns[index % len(turns)] for index, name in enumerate(others)}
    return spread | {alias: voice for alias, voice in configured.items() if alias not in known}
