"""SPDX ids of licences, from the addresses and names that corpora write."""

from __future__ import annotations

import re

PUBLIC_DOMAIN = "LicenseRef-public-domain"
"""Licence of works without copyright, in the form SPDX has for ids of one's own."""
_ADDRESS = re.compile(
    r"creativecommons\.org/(?:licenses/(?P<kind>[a-z-]+)/(?P<version>\d\.\d)"
    r"|publicdomain/(?P<zero>zero|mark)/1\.0)",
    re.IGNORECASE,
)
_NAME = re.compile(
    r"(?:creative commons )?(?P<terms>attribution[a-z -]*?) ?"
    r"(?P<version>[1-4]\.0)(?: international| unported)?(?: license)?",
    re.IGNORECASE,
)
_TERMS = {"noncommercial": "NC", "sharealike": "SA", "noderivatives": "ND", "noderivs": "ND"}


def licences_in(text: str) -> set[str]:
    """SPDX ids of the Creative Commons addresses in a text; a public domain mark has none."""
    found = set()
    for match in _ADDRESS.finditer(text):
        if match["kind"]:
            found.add(f"CC-{match['kind'].upper()}-{match['version']}")
        else:
            is_zero = match["zero"].lower() == "zero"
            found.add("CC0-1.0" if is_zero else PUBLIC_DOMAIN)
    return found


def licence_of(text: str) -> str | None:
    """The SPDX id of a licence as a corpus writes it, else the text; None if it is empty.

    Licences of single countries stay as they are written: few have an id.
    """
    text = " ".join(text.split())
    found = licences_in(text)
    if len(found) == 1:
        return found.pop()
    match = _NAME.fullmatch(text)
    if match is None:
        return text or None
    terms = re.sub(r"[ -]", "", match["terms"].lower())
    ids = [short for long, short in _TERMS.items() if long in terms]
    rest = re.sub("attribution|" + "|".join(_TERMS), "", terms)
    return text if rest else "-".join(["CC", "BY", *ids, match["version"]])
