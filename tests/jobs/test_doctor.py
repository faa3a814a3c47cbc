"""The doctor names every needed package and finds this environment whole."""

import pytest

from jobs import doctor
from pipeline import machine_check
from tests.factories.job_server import FakeServer


def test_every_requirement_is_reported_and_nothing_is_missing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert doctor.main([]) == 0
    printed = capsys.readouterr().out
    for name in (
        *machine_check.REQUIRED,
        "accelerator",
        "ray cluster",
        "bundle",
        "espeak-ng",
        "flite",
    ):
        assert name in printed


def test_a_missing_package_is_named_with_its_remedy_and_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(machine_check, "REQUIRED", (*machine_check.REQUIRED, "no_such_package"))
    assert doctor.main([]) == 1
    assert "run `make setup`" in capsys.readouterr().out


def test_a_missing_speech_program_is_a_note_with_its_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    found = next(finding for finding in machine_check.check_machine() if finding.subject == "flite")
    assert found.state == "note"
    assert "apt-get install flite" in found.detail


@pytest.mark.parametrize(
    ("states", "words"),
    [
        ({"ray": "missing"}, "not ready: ray must"),
        ({"accelerator": "note", "bundle": "ok"}, "recipes for a CPU"),
        ({"accelerator": "ok", "bundle": "ok"}, "fits its GPU memory, and make audio."),
        ({"accelerator": "note", "bundle": "note"}, "a bundle that `audiocalm export` writes"),
    ],
)
def test_one_sentence_says_what_the_machine_can_do(states: dict[str, str], words: str) -> None:
    findings = [machine_check.Finding(state, subject, "") for subject, state in states.items()]
    said = machine_check.verdict(findings)
    assert words in said
    assert said.count(".") - said.count("_gpu.yaml") - said.count("*.") == 1


def test_a_cluster_is_examined_by_a_job_and_its_findings_are_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = "Running entrypoint\nok       node: versions same\nmissing  node: storage gone\n"
    server = FakeServer(log=log, end=("FAILED", 1))
    monkeypatch.setattr("pipeline.submission.client.connect", lambda address: server)
    assert doctor.main(["--address", "http://head:8265", "--storage", "s3://bucket/x"]) == 1
    assert capsys.readouterr().out == "".join(log.splitlines(keepends=True)[1:])
    (sent,) = server.submitted
    assert sent["entrypoint"].endswith("jobs.cli doctor --on-cluster --storage s3://bucket/x")
