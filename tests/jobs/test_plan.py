from __future__ import annotations

import pytest

from jobs import plan

RECIPE = "jobs/configs/train_1.7b_gpu.yaml"


def test_a_recipe_is_planned(capsys):
    words = ["--config", RECIPE, "--gpus", "8", "--gpu", "h100", "--mfu", "0.4"]
    assert plan.main([*words, "--set", "feed.pack_length=4096"]) == 0
    said = capsys.readouterr().out
    assert "row(s) of 4,096 positions" in said
    assert "8 x 989 TFLOP/s" in said
    assert "The recipe fits." in said


def test_encoding_is_planned(capsys):
    words = ["encode", "--gpus", "4", "--hours", "100", "--real-time-factor", "0.01"]
    assert plan.main([*words, "--codec", "tiny", "--price", "2"]) == 0
    said = capsys.readouterr().out
    assert "0.25 h with 4 worker(s), 1.0 worker hours" in said
    # 360,000 s of 25 frames of 64 values, each with a mean and a log-std of 2 bytes.
    assert "2.30 GB" in said
    assert "cost     2 at 2 per worker hour" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--gpu", "h100"], "give --mfu"),
        (["--gpu", "abacus", "--mfu", "0.4"], "GPU 'abacus' is not known"),
        (["encode", "--hours", "1"], "--real-time-factor"),
        (["encode", "--hours", "1", "--real-time-factor", "-1"], "real_time_factor is -1.0"),
        (["--gpu", "h100", "--mfu", "0.4", "--set", "model.preset=9b"], "no model preset '9b'"),
    ],
)
def test_what_is_missing_or_unknown_is_named(words, message, capsys):
    assert plan.main(["--gpus", "8", *words]) == 1
    assert message in capsys.readouterr().err
