"""The page holds everything it shows, and text stays text."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipeline.evaluation.report import Report, Sample, Table, write_report


def test_the_page_is_self_contained_and_escapes_text(tmp_path: Path) -> None:
    audio = tmp_path / "a.wav"
    soundfile.write(audio, np.zeros(100, np.float32), 16_000)
    page = tmp_path / "report.html"
    table = Table("Numbers", ("name", "value"), [("loss", 0.123456), ("none", None)])
    write_report(Report("T", "lead", [Sample("s", "<script>x</script>", audio)], (), [table]), page)
    text = page.read_text()
    assert "data:audio/wav;base64,UklGR" in text
    assert "&lt;script&gt;x" in text
    assert "0.1235" in text
    assert "n/a" in text
    assert "http" not in text


def test_a_missing_sample_is_an_error_and_leaves_no_page(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    with pytest.raises(FileNotFoundError):
        write_report(Report("T", "", [Sample("s", "", tmp_path / "no.wav")]), page)
    assert not page.exists()
