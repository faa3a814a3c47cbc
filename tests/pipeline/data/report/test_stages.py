from __future__ import annotations

import shutil

import pytest

from pipeline.data.report.stages import find_stages
from pipeline.data.units.commit_log import CommitLog
from pipeline.errors import IncompleteError
from pipeline.storage import Folder


def test_all_stages_of_prepare_are_found_and_one_alone_too(prepared):
    stages = find_stages(Folder.at(prepared))
    assert list(stages) == ["ingest", "encode", "describe", "shard"]
    assert all(stage.is_complete for stage in stages.values())
    assert list(find_stages(Folder.at(prepared / "latents"))) == ["encode"]
    assert list(find_stages(Folder.at(prepared / "clips/scan"))) == ["scan"]


def test_unfinished_stage_shows_its_committed_units(prepared, tmp_path):
    clips = tmp_path / "clips"
    shutil.copytree(prepared / "clips", clips)
    (clips / "_COMPLETE").unlink()
    first, *others = [record["unit"] for record in CommitLog(Folder.at(clips))]
    CommitLog(Folder.at(clips)).forget([first])
    (stage,) = find_stages(Folder.at(clips)).values()
    assert not stage.is_complete
    whole = find_stages(Folder.at(prepared))["ingest"].card
    assert stage.card["units"] == whole["units"] - 1
    assert stage.units == others
    assert stage.card["read"] == stage.card["written"] + stage.card["rejected"] < whole["read"]


def test_nothing_to_report_is_an_error_that_says_what_to_give(tmp_path):
    with pytest.raises(IncompleteError, match=r"does not exist; give a directory.*clips, latents"):
        find_stages(Folder.at(tmp_path / "none"))
    with pytest.raises(IncompleteError, match="holds no finished unit"):
        find_stages(Folder.at(tmp_path))
    Folder.at(tmp_path / "clips").write_json("_stage.json", {"stage": "ingest"})
    with pytest.raises(IncompleteError, match="holds no finished unit"):
        find_stages(Folder.at(tmp_path))
