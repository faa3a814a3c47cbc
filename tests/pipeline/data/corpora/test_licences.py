from __future__ import annotations

import pytest

from pipeline.data.corpora.licences import licence_of, licences_in


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        ("http://creativecommons.org/licenses/by-nc/3.0/", "CC-BY-NC-3.0"),
        ("https://creativecommons.org/publicdomain/zero/1.0/", "CC0-1.0"),
        ("http://creativecommons.org/publicdomain/mark/1.0/", "LicenseRef-public-domain"),
        ("Attribution-NonCommercial-ShareAlike 3.0 International", "CC-BY-NC-SA-3.0"),
        ("Creative Commons Attribution 4.0", "CC-BY-4.0"),
        ("Attribution-Noncommercial-Share Alike 3.0", "CC-BY-NC-SA-3.0"),
        ("Attribution-NoDerivatives (aka Music Sharing) 3.0 International", None),
        ("Attribution-Noncommercial-Share Alike 3.0 United States", None),
        ("http://creativecommons.org/licenses/sampling+/1.0/", None),
        ("FMA-Limited: Download Only", None),
        ("Attribution-Whatever 3.0", None),
    ],
)
def test_addresses_and_names_become_ids_and_the_rest_stays(text, licence):
    assert licence_of(text) == (licence or text)


def test_no_text_is_no_licence():
    assert licence_of(" \n") is None


def test_two_addresses_are_two_licences():
    text = "http://creativecommons.org/licenses/by/3.0/ http://creativecommons.org/licenses/by/4.0/"
    assert licences_in(text) == {"CC-BY-3.0", "CC-BY-4.0"}
