"""Reading rendered prompts."""

from __future__ import annotations

import re

_FORM = re.compile(r"[^\n]*(?:\n\([^\n]*\))?\n(?:Says|Sings): (.*)", re.DOTALL)


def transcript_of(text: str) -> str | None:
    """The words in a rendered prompt, to the letter; None if it has none."""
    match = _FORM.fullmatch(text)
    return match[1] if match else None
