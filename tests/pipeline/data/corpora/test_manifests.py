from __future__ import annotations

import csv

import pytest

from pipeline.data.corpora.manifests import (
    BadLine,
    JsonObject,
    Line,
    ManifestError,
    read_json,
    read_lines,
    read_list,
    read_table,
)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_other_unicode_forms_are_named(encoding):
    with pytest.raises(ManifestError, match=encoding.upper()):
        list(read_lines("a|b\n".encode(encoding)))


def test_line_numbers_survive_bad_lines_and_any_line_ending():
    lines = list(read_lines(b"one\r\n\xff\r\nthree"))
    assert [type(line) for line in lines] == [Line, BadLine, Line]
    assert [line.number for line in lines] == [1, 2, 3]
    assert [line.text for line in read_lines(b"one\rtwo")] == ["one", "two"]


def test_a_quoted_cell_may_hold_lines_and_rows_keep_their_first_line():
    rows = list(read_table(read_lines(b'a,b\n"x\ny",1\n\nz,2\n'), ","))
    assert [(row.number, row.cells) for row in rows] == [
        (1, ("a", "b")),
        (2, ("x\ny", "1")),
        (5, ("z", "2")),
    ]


def test_many_open_quotes_lose_no_other_row():
    body = b"".join(b'%d,"open\n' % n if n % 2 else b"%d,fine\n" % n for n in range(1, 400))
    rows = list(read_table(read_lines(b"a,b\n" + body.replace(b'"open\n', b'"o"pen\n')), ","))
    assert sum(isinstance(row, Line) for row in rows) == 200
    assert sum(isinstance(row, BadLine) for row in rows) == 200


def test_long_cells_are_read_and_cells_beyond_the_limit_are_bad_rows(monkeypatch):
    long = b"x" * 200_000
    payload = b"a,b\n1," + long + b'\n2,"' + long + b'\nz"\n3,y\n'
    rows = list(read_table(read_lines(payload), ","))
    assert [type(row) for row in rows] == [Line] * 4
    assert [row.number for row in rows] == [1, 2, 3, 5]
    assert rows[1].cells == ("1", long.decode())
    monkeypatch.setattr("pipeline.data.corpora.manifests.MAX_CELL_CHARACTERS", 150_000)
    rows = list(read_table(read_lines(payload), ","))
    assert [type(row) for row in rows] == [Line, BadLine, BadLine, Line, Line]
    assert rows[4].cells == ("3", "y")


def test_quotes_left_open_do_not_cost_the_square_of_the_file():
    lines = [b'%d,"open' % number for number in range(3_000)]
    payload = b"a,b\n" + b"\n".join(line + b" " * 1_000 for line in lines) + b"\nlast,row\n"
    limit = csv.field_size_limit()
    rows = list(read_table(read_lines(payload), ","))
    assert rows[-1].cells == ("last", "row")
    assert csv.field_size_limit() == limit


def test_repeated_keys_are_kept_apart_and_the_first_value_stays():
    value = read_json(b'{"a": 1, "b": {"c": 1, "c": 2}, "a": 3}')
    assert isinstance(value, JsonObject)
    assert value == {"a": 1, "b": {"c": 1}}
    assert value.repeated == ("a",)
    assert value["b"].repeated == ("c",)


def test_brackets_inside_strings_are_no_depth():
    assert read_json(b'{"a": "' + b"[" * 500 + b'\\"{"}')["a"].startswith("[[[")


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("['piano', \"it's\"]", ("piano", "it's")),
        ('["a \\"b\\""]', ('a "b"',)),
        ("[]", ()),
        ("['open", None),
        ("['a' 'b']", None),
        ("__import__('os')", None),
        ("[1, 2]", None),
        ("['a', *b]", None),
    ],
)
def test_lists_of_strings_are_read_without_evaluating(text, items):
    assert read_list(text) == items
