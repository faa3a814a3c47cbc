from __future__ import annotations

import re
import shutil
from html.parser import HTMLParser

import pytest
from mlflow.tracking import MlflowClient

from jobs.data_report import main
from pipeline.data.report.write import DataReportSettings, write_data_report
from pipeline.storage import Folder
from pipeline.tracking import TrackingSettings

QUIET = DataReportSettings(tracking=TrackingSettings(is_enabled=False))


class _Tags(HTMLParser):
    """Collects tags, and fails on what does not nest."""

    _VOID = frozenset({"meta", "img", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in self._VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_holds_everything_and_text_stays_text(prepared, tmp_path):
    place = write_data_report(Folder.at(prepared), QUIET, str(tmp_path / "page.html"))
    text = (tmp_path / "page.html").read_text("utf-8")
    assert place == str(tmp_path / "page.html")
    tags = _Tags()
    tags.feed(text)
    assert tags.open == []
    assert "script" not in tags.tags, "a transcript with a script must stay text"
    assert "b" not in re.findall(r"<(\w+)>robin", text)
    assert "one &lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert tags.tags.count("svg") > 8
    assert tags.tags.count("audio") >= 5
    assert not re.findall(r"(?:src|href)=\"(?!data:)", text), "nothing is fetched"
    for heading in ("Stages", "Hours", "Durations", "Measured", "Descriptions", "Rejects"):
        assert f"<h2>{heading}" in text
    for word in ("duplicate_audio", "blackbird", "does not add up", "Not complete"):
        assert (word in text) == (word in ("duplicate_audio", "blackbird")), word


@pytest.mark.parametrize("stage", ["clips", "latents", "descriptions", "train-shards"])
def test_one_stage_alone_is_shown_as_far_as_it_goes(prepared, tmp_path, stage):
    page = tmp_path / "r.html"
    write_data_report(Folder.at(prepared / stage), QUIET, str(page))
    text = page.read_text("utf-8")
    assert ("<h2>Hours" in text) == (stage == "clips")
    assert ("<h2>Measured" in text) == (stage == "latents")
    assert ("<h2>Descriptions" in text) == (stage == "descriptions")
    assert "<h2>Stages" in text


def test_unfinished_stages_are_named(prepared, tmp_path):
    shutil.copytree(prepared / "clips", tmp_path / "clips")
    (tmp_path / "clips/_COMPLETE").unlink()
    write_data_report(Folder.at(tmp_path), QUIET)
    assert "Not complete: ingest" in (tmp_path / "report.html").read_text("utf-8")


def test_command_writes_logs_page_and_cards_and_continues_its_run(prepared, tmp_path, capsys):
    uri = f"sqlite:///{tmp_path / 'ml.db'}"
    line = [str(prepared), "--output", str(tmp_path / "r.html"), "--set", f"tracking.uri={uri}"]
    for _ in range(2):
        assert main(line) == 0
    assert f"wrote {tmp_path / 'r.html'}" in capsys.readouterr().out
    client = MlflowClient(tracking_uri=uri)
    (experiment,) = [e for e in client.search_experiments() if e.name == "audiocalm"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.metrics["ingest/read"] == 7
    assert run.data.metrics["shard/hours/music"] == pytest.approx(2 / 3600, rel=0.01)
    names = {artefact.path for artefact in client.list_artifacts(run.info.run_id)}
    assert names == {"report.html", "ingest", "encode", "describe", "shard"}
    (card,) = client.list_artifacts(run.info.run_id, "encode")
    assert card.path == "encode/dataset.json"


def test_a_missing_directory_and_a_wrong_output_are_one_line_errors(prepared, tmp_path, capsys):
    off = ["--set", "tracking.is_enabled=false"]
    assert main([str(tmp_path / "none"), *off]) == 1
    assert "does not exist; give a directory" in capsys.readouterr().err
    assert main([str(prepared), "--output", str(tmp_path / "r.pdf"), *off]) == 1
    assert "does not end in .html" in capsys.readouterr().err
