"""Pages hold what they show, and numbers read well."""

from __future__ import annotations

import pytest

from pipeline.page import number, render_page


def test_templates_extend_the_common_page_and_escape(tmp_path):
    template = tmp_path / "t.html.j2"
    template.write_text(
        '{% extends "page.html.j2" %}{% block title %}{{ name }}{% endblock %}'
        "{% block body %}{{ 1234567 | cell }} {{ none | cell }} {{ 0.123456 | cell }}{% endblock %}"
    )
    text = render_page(template, name="<x>").decode()
    assert "<title>&lt;x&gt;</title>" in text
    assert "1,234,567 n/a 0.1235" in text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.28449, "0.284"), (1234567.0, "1,234,567"), (12.0, "12"), (-0.00123, "-0.00123"),
     (99.96, "100"), (float("inf"), "inf")],
)  # fmt: skip
def test_numbers_have_three_digits_and_no_exponent(value, text):
    assert number(value) == text
