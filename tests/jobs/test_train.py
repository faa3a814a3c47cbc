from __future__ import annotations

import contextlib

import pytest

from jobs import export, train
from tests.factories.train_shards import FakeClip, write_shards


def test_train_needs_shards_and_output(capsys):
    with pytest.raises(SystemExit) as exit_info:
        train.main(["--shards", "somewhere"])
    assert exit_info.value.code == 2
    assert "--output" in capsys.readouterr().err


def test_train_explains_a_wrong_setting_in_one_line(tmp_path, capsys):
    code = train.main(
        ["--shards", str(tmp_path), "--output", str(tmp_path), "--set", "optim.num_step=3"]
    )
    assert code == 1
    assert "optim.num_step" in capsys.readouterr().err


def test_export_explains_a_missing_run_in_one_line(tmp_path, capsys):
    code = export.main(
        ["--run", str(tmp_path), "--codec", str(tmp_path), "--output", str(tmp_path / "bundle")]
    )
    captured = capsys.readouterr()
    assert code == 1
    assert "no run directory" in captured.err
    assert len(captured.err.strip().splitlines()) == 1


def test_samples_without_a_codec_are_refused_before_workers_start(tmp_path):
    from pipeline.errors import SettingsError
    from pipeline.training.run import train_run
    from tests.factories.training import small_settings

    write_shards(tmp_path / "shards", [FakeClip(name="a")])
    with pytest.raises(SettingsError, match="give --codec"):
        train_run(
            small_settings(sample={"every": 2}), str(tmp_path / "shards"), str(tmp_path / "run")
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("feed", "message"),
    [
        ({"corpus_weights": {"rain": 2.0}}, r"corpus_weights names \['rain'\]"),
        ({"pack_length": 16}, "no clips to train on"),
    ],
)
def test_an_impossible_feed_is_refused_before_ray_starts(tmp_path, monkeypatch, feed, message):
    from pipeline.training.run import train_run
    from tests.factories.training import small_settings

    def start(*args: object, **kwargs: object) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr("ray.init", start)
    write_shards(tmp_path / "shards", [FakeClip(name="a")])
    with pytest.raises(ValueError, match=message):
        train_run(small_settings(feed=feed), str(tmp_path / "shards"), str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_clips_that_are_left_out_are_counted_before_workers_start(tmp_path, monkeypatch, caplog):
    from pipeline.training.run import train_run
    from tests.factories.training import small_settings

    monkeypatch.setattr("pipeline.training.driver.run_group", lambda *args, **kwargs: None)
    monkeypatch.setattr("pipeline.training.driver.ray_cluster", contextlib.nullcontext)
    write_shards(
        tmp_path / "shards", [FakeClip(name="a"), FakeClip(name="b", descriptions=("x" * 400,))]
    )
    with pytest.raises(FileNotFoundError):  # no worker ran, so there is no summary
        train_run(small_settings(), str(tmp_path / "shards"), str(tmp_path / "run"))
    assert "1 of 2 clips are left out" in caplog.text


def test_a_modality_that_is_never_drawn_is_reported_before_workers_start(
    tmp_path, monkeypatch, caplog
):
    from pipeline.training.run import train_run
    from tests.factories.training import small_settings

    monkeypatch.setattr("pipeline.training.driver.run_group", lambda *args, **kwargs: None)
    monkeypatch.setattr("pipeline.training.driver.ray_cluster", contextlib.nullcontext)
    monkeypatch.setattr("pipeline.training.order._PERIOD", 2)
    clips = [FakeClip(name=f"s{i}", modality="sound") for i in range(16)]
    write_shards(tmp_path / "shards", [*clips, FakeClip(name="m", modality="music")])
    with pytest.raises(FileNotFoundError):  # no worker ran, so there is no summary
        train_run(small_settings(), str(tmp_path / "shards"), str(tmp_path / "run"))
    assert "no clip of music is ever drawn" in caplog.text
