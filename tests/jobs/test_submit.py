"""Submitting, following and stopping from the command line, against a server without Ray."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from jobs import cli
from jobs.cluster_arguments import SUBMITTABLE
from jobs.settings import SCHEMAS
from jobs.submission import Submission
from pipeline.errors import SettingsError
from tests.factories.job_server import FakeServer

TRAIN = ["train", "--shards", "s3://bucket/shards", "--output", "/data/run"]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> FakeServer:
    """The server that every command connects to."""
    fake = FakeServer()
    monkeypatch.setattr("pipeline.submission.client.connect", lambda address: fake)
    for command in ("list", "logs", "status", "stop"):
        monkeypatch.setattr(f"jobs.{command}.connect", lambda address: fake)
    return fake


def test_the_command_travels_with_its_recipe_and_ends_with_the_jobs_exit_code(
    server: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("optim: {num_steps: 7}")
    server.end = ("FAILED", 3)
    code = cli.main(
        ["submit", *TRAIN, "--name", "voices", "--config", str(recipe), "--set", "seed=4"]
    )
    assert code == 3
    (sent,) = server.submitted
    words = shlex.split(sent["entrypoint"])
    assert words[:5] == ["exec", "python", "-m", "jobs.cli", "train"]
    packed = words[words.index("--config") + 1]
    assert packed in server.packed
    assert {"jobs/cli.py", "pipeline/training/loop.py"} <= server.packed
    assert words[-4:] == ["--set", "seed=4", "--set", "tracking.run_name=voices"]
    assert sent["submission_id"].startswith("voices-")
    assert sent["runtime_env"]["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"] == "900"
    assert sent["entrypoint_num_cpus"] == 0
    out, err = capsys.readouterr()
    assert "voices: FAILED after 1 min 0 s, exit code 3" in out
    assert "step 30 of 100, loss 0.3000, 0.5/s, 2 min 20 s left, last checkpoint at step 20" in err
    assert "finished at step 100" in err, "the last lines of a failed job are shown"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--set", "optim.num_step=3"], "setting 'optim.num_step' is 3"),
        (["--output", "runs/mine"], "--output runs/mine is a folder of this machine"),
        (["--output", "mine"], "give an absolute path or a URI"),
        (["--codec", "jobs"], "--codec jobs is a folder of this machine"),
        (["--config", "none.yaml"], "cannot read none.yaml"),
        (["--name", "a b"], "--name 'a b'"),
        (["--env", "A=1"], "take names only"),
        (["--env", "HF_TOKEN"], "give --secret HF_TOKEN"),
        (["--env", "AUDIOCALM_NOT_SET"], "is not set here"),
    ],
)
def test_what_would_fail_on_the_cluster_is_refused_here(
    server: FakeServer, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert cli.main(["submit", *TRAIN, *words]) == 1
    assert message in capsys.readouterr().err
    assert not server.submitted


def test_an_option_that_the_command_does_not_have_is_refused(server: FakeServer) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["submit", *TRAIN, "--no-such-option"])
    assert stop.value.code == 2
    assert not server.submitted


def test_variables_travel_by_name_and_secrets_stay_on_the_cluster(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    options = ["--env", "MLFLOW_TRACKING_URI", "--secret", "AWS_SECRET_ACCESS_KEY", "--detach"]
    assert cli.main(["submit", *TRAIN, *options]) == 0
    (sent,) = server.submitted
    assert sent["runtime_env"]["env_vars"]["MLFLOW_TRACKING_URI"] == "http://mlflow:5000"
    assert "hush" not in repr(sent)
    assert sent["entrypoint"].startswith(': "${AWS_SECRET_ACCESS_KEY:?is not set on the cluster}"')


def test_a_missing_secret_ends_the_job_before_it_starts(tmp_path: Path) -> None:
    submission = Submission.of("shard", SHARD, secrets=["AUDIOCALM_SECRET"])
    command = submission.entrypoint().replace("exec python", "exec echo started")
    for environment, code in (({}, 2), ({"AUDIOCALM_SECRET": "x"}, 0)):
        done = subprocess.run(
            ["/bin/sh", "-c", command], env=environment, capture_output=True, text=True
        )
        assert bool(done.returncode) == bool(code)
        assert ("started" in done.stdout) == (not code)
        assert ("is not set on the cluster" in done.stderr) == bool(code)


SHARD = [word for name in ("clips", "latents", "descriptions", "output")
         for word in (f"--{name}", f"/data/{name}")]  # fmt: skip


def test_a_shipped_codec_is_named_and_a_driver_that_computes_gets_a_cpu(
    server: FakeServer,
) -> None:
    words = ["--run", "/data/run", "--codec", "shipped-tiny", "--output", "/data/bundle"]
    assert cli.main(["submit", "export", *words, "--wait"]) == 0
    assert server.submitted[0]["entrypoint_num_cpus"] == 1
    assert "tracking" not in server.submitted[0]["entrypoint"]


def test_ctrl_c_leaves_the_job_and_says_how_to_attach_again(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("jobs.watch.follow", interrupt)
    assert cli.main(["submit", *TRAIN, "--name", "mine"]) == 130
    assert "audiocalm status mine-" in capsys.readouterr().err
    assert not server.stopped


def test_a_running_job_of_the_same_name_is_not_doubled(
    server: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.add("mine-1", "mine")
    assert cli.main(["submit", *TRAIN, "--name", "mine"]) == 1
    assert "audiocalm stop mine" in capsys.readouterr().err


def test_status_and_logs_attach_to_a_job_again(
    server: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.add("mine-1", "mine")
    assert cli.main(["status", "mine"]) == 0
    out = capsys.readouterr().out
    assert "mine: RUNNING" in out
    assert "progress  step 30 of 100, loss 0.3000, 0.5/s" in out
    assert cli.main(["logs", "mine"]) == 0
    assert capsys.readouterr().out == server.log
    server.end = ("FAILED", 5)
    assert cli.main(["logs", "mine-1", "-f"]) == 5
    assert capsys.readouterr().out == server.log
    assert cli.main(["status", "mine", "--follow"]) == 5


def test_stop_asks_once_waits_for_the_end_and_names_the_checkpoint(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("jobs.stop._POLL_S", 0.0)
    server.add("mine-1", "mine")
    server.polls_to_end, server.end = 3, ("STOPPED", None)
    assert cli.main(["stop", "mine"]) == 0
    out = capsys.readouterr().out
    assert "mine: STOPPED after 1 min 0 s; step 30 of 100" in out
    assert "last checkpoint at step 20" in out
    assert server.stopped == ["mine-1"]
    assert cli.main(["stop", "mine"]) == 0
    assert server.stopped == ["mine-1"], "an ended job is left alone"


def test_list_shows_the_newest_first(
    server: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.add("old-1", "old", start_time=1, status="FAILED")
    server.add("new-1", "new", start_time=2)
    assert cli.main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in lines] == [
        ["NAME", "STATE", "COMMAND"],
        ["new", "RUNNING", "train"],
        ["old", "FAILED", "train"],
    ]


def test_the_commands_that_can_be_submitted_exist() -> None:
    assert set(SUBMITTABLE) <= set(cli.COMMANDS)
    assert {"prepare", "train", "evaluate"} <= set(SUBMITTABLE) & set(SCHEMAS)


def test_a_submission_without_a_name_is_named_after_its_command() -> None:
    assert Submission.of("shard", SHARD).name.startswith("shard-")
    with pytest.raises(SettingsError, match="tracking"):
        Submission.of("train", [*TRAIN[1:], "--set", "tracking.no=1"])


@pytest.mark.parametrize(
    "words", [["list", "--number", "0"], ["submit", *TRAIN, "--stop-seconds", "-5"]]
)
def test_a_count_below_one_is_refused(
    server: FakeServer, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(words)
    assert stop.value.code == 2
    assert "give at least 1" in capsys.readouterr().err
    assert not server.submitted
