from __future__ import annotations

import pytest

from jobs import describe, encode, shard
from jobs.options import EXIT_FAILED
from pipeline.storage import Folder
from tests.factories.clips import small_corpus, write_clips, write_codec

HERE = ["--set=resources.workers=0"]


def test_stages_run_one_by_one_from_the_command_line(tmp_path, capsys):
    write_clips(tmp_path / "clips", small_corpus())
    folders = {name: str(tmp_path / name) for name in ("clips", "latents", "descriptions", "out")}
    clips = ["--clips", folders["clips"]]
    codec = ["--codec", write_codec(tmp_path / "codec")]
    assert encode.main([*clips, *codec, "--output", folders["latents"], *HERE]) == 0
    latents = [*clips, "--latents", folders["latents"]]
    texts = ["--set=texts_per_clip=3", "--output", folders["descriptions"]]
    assert describe.main([*latents, *texts, *HERE]) == 0
    descriptions = ["--descriptions", folders["descriptions"], "--output", folders["out"]]
    assert shard.main([*latents, *descriptions, *HERE]) == 0
    shown = capsys.readouterr().out
    assert all(stage in shown for stage in ("encode", "describe", "shard"))
    assert Folder.at(folders["out"]).card()["written"] == 10


@pytest.mark.parametrize(
    ("job", "inputs"),
    [
        (encode, ("clips", "codec")),
        (describe, ("clips", "latents")),
        (shard, ("clips", "latents", "descriptions")),
    ],
)
def test_missing_input_is_one_line_and_no_traceback(job, inputs, tmp_path, capsys):
    flags = [word for name in inputs for word in (f"--{name}", str(tmp_path / name))]
    assert job.main([*flags, "--output", str(tmp_path / "out"), *HERE]) == EXIT_FAILED
    error = capsys.readouterr().err
    assert "error: " in error
    assert "Traceback" not in error


def test_unknown_setting_names_the_nearest_one(tmp_path, capsys):
    flags = ["--clips", "c", "--latents", "l", "--output", str(tmp_path / "out")]
    assert describe.main([*flags, "--set=text_per_clip=3"]) == EXIT_FAILED
    assert "did you mean 'texts_per_clip'" in capsys.readouterr().err
