"""Words around a wording keep the wording, in the same order for the same seed."""

from __future__ import annotations

import re

import numpy as np
import pytest

from pipeline.data.starter.requests import as_requests


@pytest.mark.parametrize("kind", ["sound", "music"])
def test_what_is_asked_for_stays(kind: str) -> None:
    texts = ["an owl hooting", "steady rain", "it is raining"] * 100
    requests = as_requests(np.random.default_rng(0), texts, kind)
    assert requests == as_requests(np.random.default_rng(0), texts, kind)
    assert len(set(requests)) > 100
    for text, request in zip(texts, requests, strict=True):
        assert text.split(" ", 1)[-1] in request.lower()
        assert request[0].isupper()
        assert request.endswith(".")
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", request.lower())


def test_a_clause_is_not_asked_for_as_a_thing() -> None:
    requests = as_requests(np.random.default_rng(1), ["it is raining"] * 50, "sound")
    assert all(request.startswith("It is raining") for request in requests)
