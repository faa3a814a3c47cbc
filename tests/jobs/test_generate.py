"""`audiocalm generate`: a file or a one-line error, and never any Ray."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from jobs.generate import main
from model.bundle import DEFAULT_BUNDLE
from model.bundle.bundle import load_bundle
from model.bundle.limits import DEFAULT_SPEECH_DESCRIPTION
from model.bundle.request import SynthesisRequest
from model.bundle.shipped import SHIPPED
from model.bundle.synthesis import Piece, Synthesizer
from pipeline.serving.formats import pcm_bytes
from pipeline.serving.offline import open_synthesizer
from tests.factories.bundle import write_bundle

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle"))


def command(bundle: Path, out: Path, *more: str) -> list[str]:
    return [
        *("--bundle", str(bundle), "--description", "rain", "--flow-steps", "2"),
        *("--out", str(out), *more),
    ]


def test_a_file_of_the_exact_duration_and_its_facts(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "rain.wav"
    assert main(command(bundle, out, "--seconds", "0.75", "--seed", "3")) == 0
    samples, rate = soundfile.read(out, dtype="float32")
    synthesizer = Synthesizer(load_bundle(bundle))
    assert rate == synthesizer.timebase.sample_rate
    steps = {"num_flow_steps": 2}
    request = SynthesisRequest(description="rain", duration_s=0.75, seed=3, sampling=steps)
    chunks = list(synthesizer.stream(request))
    expected = np.concatenate([chunk.numpy() for chunk in chunks], axis=-1)[0]
    # Half a step of 16 bits, and one more for the scale of the reader.
    np.testing.assert_allclose(samples, expected, atol=2 / 32768)
    printed = capsys.readouterr().out
    assert str(out) in printed
    assert "0.75 s of audio" in printed
    assert "real-time factor" in printed
    assert [path.name for path in out.parent.iterdir()] == ["rain.wav"]


def test_a_text_is_spoken_with_the_shipped_bundle(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SHIPPED, DEFAULT_BUNDLE, (bundle, load_bundle(bundle).digest))
    out, same = tmp_path / "text.wav", tmp_path / "same.wav"
    less = ("--seconds", "0.3", "--flow-steps", "2")
    assert main(["Good morning.", "-o", str(out), *less]) == 0
    options = ("--description", DEFAULT_SPEECH_DESCRIPTION, "--transcript", "Good morning.")
    assert main(["--bundle", str(bundle), *options, "--out", str(same), *less]) == 0
    assert out.read_bytes() == same.read_bytes()


def test_words_alone_are_spoken_in_the_default_voice_of_the_bundle(tmp_path: Path) -> None:
    given = write_bundle(tmp_path, default_voice="ada")
    out, same, other = (tmp_path / f"{name}.wav" for name in ("text", "same", "other"))
    more = ("--bundle", str(given), "--seconds", "0.3", "--flow-steps", "1")
    assert main(["Good morning.", "-o", str(out), *more]) == 0
    assert main(["Good morning.", "-o", str(same), *more, "--voice", "ada"]) == 0
    assert main(["Good morning.", "-o", str(other), *more, "--description", "A voice."]) == 0
    assert out.read_bytes() == same.read_bytes() != other.read_bytes()


def test_speech_at_twice_the_speed_takes_half_the_time(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paced = write_bundle(tmp_path / "paced", paces_speech=True)
    words = ("--transcript", "Good morning to all of you.")
    durations = []
    for speed in ("1", "2"):
        out = tmp_path / f"{speed}.wav"
        assert main(command(paced, out, *words, "--speed", speed)) == 0
        durations.append(soundfile.info(out).duration)
    assert durations[0] == pytest.approx(2 * durations[1], abs=0.05)
    capsys.readouterr()
    assert main(command(bundle, tmp_path / "x.wav", *words, "--speed", "2")) == 1
    assert "knows the speaking rate" in capsys.readouterr().err


def test_a_long_text_from_a_file_is_read_in_parts(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.bundle.limits.LONGEST_PART_S", 1.0)
    words, out = tmp_path / "words.txt", tmp_path / "x.wav"
    words.write_text("One two three. Four five six.\nSeven \u00e9ight.", encoding="utf-8")
    read = ("--transcript-file", str(words))
    assert main(command(bundle, out, *read)) == 0
    synthesizer = open_synthesizer(bundle)
    request = SynthesisRequest(
        description="rain", transcript=words.read_text("utf-8"), sampling={"num_flow_steps": 2}
    )
    assert len(synthesizer.prepare(request).parts) > 1
    expected = b"".join(pcm_bytes(chunk.numpy()) for chunk in synthesizer.stream(request))
    assert out.read_bytes().endswith(expected)
    assert soundfile.info(out).frames == len(expected) // 2
    words.write_bytes(b"\xff")
    assert main(command(bundle, out, *read)) == 1


def test_words_come_from_standard_input(bundle: Path, tmp_path: Path) -> None:
    read, write = os.pipe()
    os.write(write, b"One two.")
    os.close(write)
    before = os.dup(0)
    os.dup2(read, 0)
    try:
        words = ("--transcript-file", "-", "--seconds", "0.3")
        assert main(command(bundle, tmp_path / "x.wav", *words)) == 0
    finally:
        os.dup2(before, 0)
        for descriptor in (read, before):
            os.close(descriptor)
    same = ("--transcript", "One two.", "--seconds", "0.3")
    assert main(command(bundle, tmp_path / "same.wav", *same)) == 0
    assert (tmp_path / "x.wav").read_bytes() == (tmp_path / "same.wav").read_bytes()


def test_a_text_describes_where_nothing_is_spoken(bundle: Path, tmp_path: Path) -> None:
    out, same = tmp_path / "text.wav", tmp_path / "same.wav"
    more = ("--bundle", str(bundle), "--modality", "music", "--seconds", "0.3", "--flow-steps", "2")
    assert main(["A slow waltz.", "-o", str(out), *more]) == 0
    assert main(["--description", "A slow waltz.", "-o", str(same), *more]) == 0
    assert out.read_bytes() == same.read_bytes()


def test_a_text_describes_where_the_words_are_given_as_well(bundle: Path, tmp_path: Path) -> None:
    out, same = tmp_path / "text.wav", tmp_path / "same.wav"
    more = ("--bundle", str(bundle), "--transcript", "seven", "--flow-steps", "1")
    assert main(["A woman speaks.", "-o", str(out), *more]) == 0
    assert main(["--description", "A woman speaks.", "-o", str(same), *more]) == 0
    assert out.read_bytes() == same.read_bytes()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "nothing to make: give the words to speak as TEXT"),
        (["a", "--transcript=b", "--description=c"], "TEXT 'a' and --description 'c' both"),
        (["a", "--modality=sound", "--description=b"], "TEXT 'a' and --description 'b' both"),
        (["a", "--singing"], "nothing to make"),
    ],
)
def test_words_and_description_are_given_once(
    bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    assert main([*words, "--bundle", str(bundle), "-o", str(tmp_path / "x.wav")]) == 1
    assert message in capsys.readouterr().err


def test_a_package_without_the_shipped_bundle_says_what_to_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(SHIPPED, DEFAULT_BUNDLE, (tmp_path, "0" * 64))
    assert main(["one", "-o", str(tmp_path / "x.wav")]) == 1
    assert "built without the bundle audiocalm-tiny" in capsys.readouterr().err


def test_speech_with_a_voice_of_the_bundle(bundle: Path, tmp_path: Path) -> None:
    plain, voiced = tmp_path / "plain.wav", tmp_path / "voiced.wav"
    words = ("--transcript", "one", "--language", "en", "--seconds", "0.5")
    assert main(command(bundle, plain, *words)) == 0
    assert main(command(bundle, voiced, *words, "--voice", "ada")) == 0
    assert plain.read_bytes() != voiced.read_bytes()


def test_the_voices_of_the_bundle_are_listed_with_descriptions(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--bundle", str(bundle), "--list-voices"]) == 0
    assert capsys.readouterr().out == "ada  A woman speaks.\n"


def test_a_named_voice_brings_its_description(bundle: Path, tmp_path: Path) -> None:
    out, same = tmp_path / "named.wav", tmp_path / "same.wav"
    words = ("--bundle", str(bundle), "one", "--voice=ada", "--seconds=0.3", "--flow-steps=2")
    assert main([*words, "-o", str(out)]) == 0
    assert main([*words, "--description=A woman speaks.", "-o", str(same)]) == 0
    assert out.read_bytes() == same.read_bytes()


def test_speech_continues_a_recording(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = write_bundle(tmp_path / "wide", speaker_dim=192)
    recording, out, plain = (tmp_path / f"{name}.wav" for name in ("said", "out", "plain"))
    time_s = np.arange(24_000) / 16_000
    tone = sum(np.sin(2 * np.pi * 120 * k * time_s) / k for k in range(1, 20))
    soundfile.write(recording, 0.2 * tone, 16_000)
    words = ("--bundle", str(bundle), "two", "--seconds=0.3", "--flow-steps=2")
    continued = ("--continue", str(recording), "--continue-transcript", "one")
    assert main([*words, *continued, "-o", str(out)]) == 0
    # The voice alone is something else than the voice and what it has said.
    assert main([*words, "--voice", str(recording), "-o", str(plain)]) == 0
    assert soundfile.info(out).frames == soundfile.info(plain).frames == 4800
    assert out.read_bytes() != plain.read_bytes()
    assert main([*words, *continued[:2], "-o", str(out)]) == 1
    assert "--continue and --continue-transcript go together" in capsys.readouterr().err


def test_a_recording_is_embedded_and_must_suit_the_model(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording = tmp_path / "voice.wav"
    time_s = np.arange(16_000) / 16_000
    tone = sum(np.sin(2 * np.pi * 120 * k * time_s) / k for k in range(1, 20))
    soundfile.write(recording, 0.2 * tone, 16_000)
    out = tmp_path / "x.wav"
    # The encoder gives 192 values, this bundle's model takes 5: what the check is for.
    assert main(command(bundle, out, "--voice", str(recording))) == 1
    assert "an embedding of 192 values; the model takes 5" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("--seconds", "0"), "duration_s: is 0.0; it must be in [0.1, 120.0]"),
        (("--modality", "speech"), "transcript: speech needs a transcript"),
        (("--voice", "eve"), "voice: 'eve' is no file and no voice of the bundle, which has ada"),
        (("--flow-steps", "0"), "num_flow_steps"),
        (("--guidance", "-1"), "guidance_scale"),
        (("--flow-steps", "300000000"), "num_flow_steps: is 300000000; it must be in [1, 256]"),
        (("--flow-steps", "9" * 400), "num_flow_steps: is an integer of 1329 bits"),
        (("--seconds", "inf"), "duration_s: is inf"),
        (("--seconds", "nan"), "duration_s: is nan"),
        (("--guidance", "1e300"), "guidance_scale: is 1e+300"),
        (("--seed", "9" * 400), "seed: is an integer of 1329 bits"),
        (("--transcript", "..."), "transcript: '...' holds nothing to say"),
        (("--transcript", "\u200b"), "transcript: is empty"),
        (("--transcript", "7" * 50_000), "takes about 11364 s; at most 10800 s are made"),
        (("--transcript", "a" * 100_001), "has 100001 characters; at most 100000 are taken"),
        (("--transcript-file", "nowhere.txt"), "cannot read nowhere.txt: No such file"),
        (("--transcript-file", "/dev/null"), "transcript: is empty"),
        (("--transcript=a", "--transcript-file=b"), "--transcript and --transcript-file both"),
        (("--transcript", "\udcff"), "transcript: holds half of a surrogate pair"),
        (("--seed", "-5"), "seed: is -5; it must be in"),
        (("--description", " "), "description: is empty"),
        (("--bundle", "nowhere"), "nowhere is no bundle"),
        (("--device", "cuda"), "device is 'cuda' and no CUDA device is there; take cpu or auto"),
        (("--out", "x.xyz"), "x.xyz ends in none of .wav, .flac, .mp3"),
        (("--out", "x"), "x ends in none of .wav"),
    ],
)
def test_what_cannot_be_made_is_one_line_and_code_1(
    bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    changes: tuple[str, str],
    message: str,
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    out = tmp_path / "x.wav"
    assert main(command(bundle, out, *changes)) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    assert message in printed.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", ["flac", "mp3", "opus", "ogg", "AAC"])
def test_the_ending_chooses_the_format(bundle: Path, tmp_path: Path, ending: str) -> None:
    out = tmp_path / f"rain.{ending}"
    assert main(command(bundle, out)) == 0
    expected = {"opus": "ogg", "AAC": "aac"}.get(ending, ending)
    with av.open(out) as file:
        assert expected in file.format.name
        made = sum(frame.samples for frame in file.decode(audio=0)) / file.streams.audio[0].rate
    assert made == pytest.approx(_seconds(bundle, tmp_path), abs=0.3)  # delay and padding
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def _seconds(bundle: Path, folder: Path) -> float:
    assert main(command(bundle, folder / "plain.wav")) == 0
    return soundfile.info(folder / "plain.wav").duration


def test_a_file_that_cannot_be_written_is_named(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.wav").mkdir()
    assert main(command(bundle, tmp_path / "x.wav")) == 1
    printed = capsys.readouterr().err
    assert printed.startswith(f"error: cannot write {tmp_path / 'x.wav'}: ")
    assert "aside" not in printed
    assert [path.name for path in tmp_path.iterdir()] == ["x.wav"]


def test_an_altered_bundle_is_refused(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    with (copy / "model.safetensors").open("ab") as stream:
        stream.write(b"\0")
    assert main(command(copy, tmp_path / "x.wav")) == 1
    assert "model.safetensors was altered" in capsys.readouterr().err


def test_speech_that_was_capped_says_so(
    bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pieces = Synthesizer.pieces

    def capped(*given: object) -> Iterator[Piece]:
        for piece in pieces(*given):  # type: ignore[arg-type]
            yield dataclasses.replace(piece, is_capped=True)

    monkeypatch.setattr(Synthesizer, "pieces", capped)
    assert main(command(bundle, tmp_path / "x.wav", "--transcript", "one")) == 0
    assert "reached its longest duration" in capsys.readouterr().out
    monkeypatch.undo()
    exact = ("--transcript", "one", "--seconds", "0.3")
    assert main(command(bundle, tmp_path / "x.wav", *exact)) == 0
    assert "reached its longest duration" not in capsys.readouterr().out


@pytest.mark.slow
def test_heavy_libraries_are_not_imported(bundle: Path, tmp_path: Path) -> None:
    """Ray never; PyTorch's compiler and what reads recordings not without need."""
    recording, out = tmp_path / "voice.wav", tmp_path / "x.wav"
    soundfile.write(recording, 0.2 * np.sign(np.sin(0.05 * np.arange(16_000))), 16_000)
    code = f"""
import sys
from jobs.generate import main
words = {command(bundle, out, "--seconds", "0.2")!r}
never = {{"ray", "deepspeed", "mlflow", "fastapi", "torch._dynamo", "sympy"}}
assert main(words) == 0
unneeded = {{*never, "scipy", "soundfile", "pydantic"}} & sys.modules.keys()
assert not unneeded, unneeded
assert main([*words, "--voice", {str(recording)!r}]) == 1
found = never & sys.modules.keys()
sys.exit(f"imported {{found}}" if found else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "an embedding of 192 values" in done.stderr
    assert out.exists()
