from __future__ import annotations

from pipeline.data.word_files import read_words


def test_lists_and_texts_of_lines_are_tuples_and_all_else_stays(tmp_path):
    path = tmp_path / "words.yaml"
    path.write_text(
        "words: [zwei, 'null', [drei]]\n"
        "lines: |\n  {one}, then: two\n  # three\n"
        "table:\n  room: 0.5\n  name: a name\n",
        encoding="utf-8",
    )
    assert read_words(path) == {
        "words": ("zwei", "null", ("drei",)),
        "lines": ("{one}, then: two", "# three"),
        "table": {"room": 0.5, "name": "a name"},
    }
