"""Self-contained HTML pages: one style, escaped text, pictures and audio inside the file."""

from __future__ import annotations

import base64
import math
from pathlib import Path

import jinja2

MEDIA_TYPES = {".wav": "audio/wav", ".mp3": "audio/mpeg", ".png": "image/png"}
"""Media types of the files that a page can hold, by the ending of their names."""


def render_page(template: Path, **values: object) -> bytes:
    """A page from a template that extends `page.html.j2`; every value is escaped.

    Args:
        template: Jinja file; `inline` makes a file's contents an address, `cell` and
            `number` format values.
        values: Variables of the template.

    Raises:
        OSError: If an audio file or image of the page is missing.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([template.parent, Path(__file__).parent]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["inline"] = _inline
    environment.filters["cell"] = _cell
    environment.filters["number"] = number
    return environment.get_template(template.name).render(**values).encode()


def data_uri(payload: bytes, media_type: str) -> str:
    """Contents as a `data:` URI, which needs no file beside the page."""
    return f"data:{media_type};base64,{base64.b64encode(payload).decode()}"


def number(value: float, digits: int = 3) -> str:
    """A value with the given number of significant digits, below 0.0001 with an exponent."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if abs(value) < 1e-4:
        return f"{value:.{digits}g}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _inline(path: Path) -> str:
    return data_uri(path.read_bytes(), MEDIA_TYPES[path.suffix])


def _cell(value: object) -> str:
    if value is None:
        return "n/a"
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if type(value) is int else str(value)
