"""A bundle loads to the same model, and nothing altered, missing or unlisted is let through."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from model.bundle import DEFAULT_BUNDLE
from model.bundle.bundle import Precision, load_bundle, read_manifest, save_bundle
from model.bundle.request import SynthesisRequest
from model.bundle.shipped import SHIPPED, BundleError, bundle_folder, has_bundle
from model.bundle.synthesis import Synthesizer
from model.bundle.voices import Voice
from model.bundle.weights import StoredPrecision
from model.codec.registry import (
    build_codec,
    codec_digest,
    codec_folder,
    codec_preset,
    load_codec,
    save_codec,
)
from model.text import ByteTokenizer
from tests.factories.bundle import bundle_config, write_bundle
from tests.factories.model import random_model


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("saved"))


@pytest.fixture
def copied(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "bundle"))


def test_a_bundle_loads_to_the_same_values(saved: Path) -> None:
    bundle = load_bundle(saved)
    expected = random_model(bundle_config()).state_dict()
    actual = bundle.model.state_dict()
    assert actual.keys() == expected.keys()
    assert all(torch.equal(actual[name], value) for name, value in expected.items())
    codec = build_codec(codec_preset("tiny"))
    latents = torch.randn(1, 3, codec.latent_dim)
    assert torch.equal(bundle.codec.decode(latents), codec.decode(latents))
    assert bundle.tokenizer.name == "bytes"
    assert bundle.card == {"name": "random", "licence": "CC0-1.0"}
    assert torch.equal(bundle.voices["ada"].embedding, torch.linspace(-1, 1, 5))
    assert bundle.voices["ada"].description == "A woman speaks."
    assert not bundle.model.training
    assert bundle.model.device == torch.device("cpu")


@pytest.mark.parametrize(
    ("precision", "expected"),
    [("auto", torch.float32), ("fp32", torch.float32), ("bf16", torch.bfloat16)],
)
def test_the_model_is_loaded_in_the_precision_asked_for(
    saved: Path, precision: Precision, expected: torch.dtype
) -> None:
    bundle = load_bundle(saved, precision=precision)
    assert {weight.dtype for weight in bundle.model.parameters()} == {expected}
    assert bundle.model.latent_mean.dtype == torch.float32
    assert {weight.dtype for weight in bundle.codec.parameters()} == {torch.float32}
    request = SynthesisRequest(description="Rain.", modality="sound", duration_s=0.4)
    heard = torch.cat(list(Synthesizer(bundle).stream(request)), dim=-1)
    assert heard.dtype == torch.float32
    assert bool(heard.isfinite().all())


class RandomDraws(TorchDispatchMode):
    """Counts random values that are drawn into memory, and the bytes that come to be."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn: list[str] = []
        self.made_bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and not result.is_meta:
            if torch.Tag.nondeterministic_seeded in function.tags:
                self.drawn.append(str(function))
            if not function.is_view and function._schema.name[-1] != "_":
                self.made_bytes += result.untyped_storage().nbytes()
        return result


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_model_is_loaded_without_first_values_and_once(
    saved: Path, monkeypatch: pytest.MonkeyPatch, precision: Precision
) -> None:
    codec = load_codec(saved / "codec")
    monkeypatch.setattr("model.bundle.bundle.load_codec", lambda folder: codec)
    with RandomDraws() as draws:
        bundle = load_bundle(saved, precision=precision)
    assert draws.drawn == []
    tensors = [*bundle.model.parameters(), *bundle.model.buffers()]
    assert not any(tensor.is_meta for tensor in tensors)
    assert {buffer.dtype for buffer in bundle.model.buffers()} == {torch.float32}
    assert all(parameter.requires_grad for parameter in bundle.model.parameters())
    size = sum(tensor.nbytes for tensor in tensors)
    assert draws.made_bytes < 1.1 * size, "each tensor is made once"


def test_the_digest_follows_the_weights(saved: Path, tmp_path: Path) -> None:
    digest = load_bundle(saved).digest
    assert load_bundle(write_bundle(tmp_path / "same")).digest == digest
    assert load_bundle(write_bundle(tmp_path / "other", seed=1)).digest != digest


def test_the_readme_shows_card_and_files(saved: Path) -> None:
    text = (saved / "README.md").read_text()
    assert text.startswith("# random\n")
    assert "CC0-1.0" in text
    assert "| codec | vae, 16000 Hz, 1 channels |" in text
    assert "| music | 16 flow steps, guidance 4 |" in text
    assert "| the codec's stream is late by | 15.0 ms |" in text
    for name in json.loads((saved / "bundle.json").read_text())["files"]:
        assert f"| {name} |" in text


@pytest.mark.parametrize(
    "name",
    ["model.safetensors", "codec/model.safetensors", "codec/codec.json", "voices.safetensors"],
)
def test_an_altered_part_is_refused(copied: Path, name: str) -> None:
    payload = bytearray((copied / name).read_bytes())
    payload[-1] ^= 1
    (copied / name).write_bytes(payload)
    with pytest.raises(BundleError, match=rf"{name} was altered.*export the bundle again"):
        load_bundle(copied)


def test_a_missing_part_is_refused(copied: Path) -> None:
    (copied / "codec" / "model.safetensors").unlink()
    with pytest.raises(BundleError, match=r"codec/model.safetensors is missing"):
        load_bundle(copied)


def test_an_unlisted_part_is_refused(copied: Path) -> None:
    (copied / "tokenizer" / "added.json").write_text("{}")
    with pytest.raises(BundleError, match=r"tokenizer/added.json is not listed"):
        load_bundle(copied)


def test_a_pickle_is_refused_by_name(copied: Path) -> None:
    (copied / "codec" / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(BundleError, match="convert it to safetensors"):
        load_bundle(copied)


def _change(copied: Path, change: Callable[[dict], object]) -> None:
    path = copied / "bundle.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def test_the_codec_is_named_by_digest_and_another_is_refused(copied: Path) -> None:
    named = json.loads((copied / "bundle.json").read_text())["codec"]
    assert named == codec_digest(copied / "codec")
    _change(copied, lambda manifest: manifest.update(codec="0" * 64))
    with pytest.raises(BundleError, match=rf"is codec {named[:12]}.*names 000000000000"):
        load_bundle(copied)
    _change(copied, lambda manifest: manifest.pop("codec"))
    load_bundle(copied)


def test_sampling_is_kept_and_a_broken_one_is_refused(copied: Path) -> None:
    _change(copied, lambda manifest: manifest.update(sampling={"music": {"num_flow_steps": 4}}))
    steps = {name: o.num_flow_steps for name, o in load_bundle(copied).sampling.items()}
    assert steps == {"speech": 16, "sound": 16, "music": 4}
    _change(copied, lambda manifest: manifest.update(sampling={"music": {"steps": 4}}))
    with pytest.raises(BundleError, match=r"no 'steps'.*export the bundle again"):
        load_bundle(copied)
    _change(copied, lambda manifest: manifest.pop("sampling"))
    load_bundle(copied)


def test_a_default_voice_is_one_of_the_voices(tmp_path: Path) -> None:
    assert write_bundle(tmp_path / "known", default_voice="ada")
    with pytest.raises(ValueError, match="default_voice of the card is 'eve'; the bundle has ada"):
        write_bundle(tmp_path / "unknown", default_voice="eve")


def test_another_schema_version_is_refused(copied: Path) -> None:
    _change(copied, lambda manifest: manifest.update(schema_version=99))
    with pytest.raises(BundleError, match="schema version 99; this program reads 1"):
        load_bundle(copied)


def test_a_name_outside_the_bundle_is_refused(copied: Path) -> None:
    _change(copied, lambda manifest: manifest["files"].update({"../../etc/passwd": "0"}))
    with pytest.raises(BundleError, match="outside the bundle"):
        load_bundle(copied)


def test_a_manifest_of_another_model_is_refused(copied: Path) -> None:
    _change(copied, lambda manifest: manifest["model"]["backbone"].update(ffn_dim=32))
    with pytest.raises(BundleError, match="does not fit the model"):
        load_bundle(copied)


def test_a_damaged_manifest_is_refused(copied: Path) -> None:
    (copied / "bundle.json").write_text("{")
    with pytest.raises(BundleError, match="not valid JSON"):
        load_bundle(copied)


def test_no_bundle_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="audiocalm export"):
        load_bundle(tmp_path)


def _source(tmp_path: Path) -> Path:
    save_codec(build_codec(codec_preset("tiny")), tmp_path / "codec")
    return tmp_path / "codec"


def test_a_bundle_is_replaced_as_a_whole(copied: Path, tmp_path: Path) -> None:
    model = random_model(bundle_config(), seed=3)
    save_bundle(copied, model, _source(tmp_path), ByteTokenizer(), {"name": "new"})
    bundle = load_bundle(copied)
    assert bundle.card == {"name": "new"}
    assert bundle.voices == {}
    assert not list(tmp_path.glob(".aside-*"))


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("model.bundle.bundle.save_weights", no_space)
    target = tmp_path / "bundles" / "x"
    with pytest.raises(OSError, match="No space"):
        save_bundle(target, random_model(bundle_config()), _source(tmp_path), ByteTokenizer(), {})
    assert list(target.parent.iterdir()) == []


def test_other_contents_are_not_overwritten(tmp_path: Path) -> None:
    target = tmp_path / "home"
    target.mkdir()
    (target / "thesis.txt").write_text("years of work")
    with pytest.raises(BundleError, match="something else than a bundle"):
        save_bundle(target, random_model(bundle_config()), _source(tmp_path), ByteTokenizer(), {})
    assert (target / "thesis.txt").read_text() == "years of work"


def test_a_codec_of_another_width_is_refused(tmp_path: Path) -> None:
    source = _source(tmp_path)
    config = random_model().config
    assert config.latent_dim != load_codec(source).latent_dim
    with pytest.raises(BundleError, match="latent_dim"):
        save_bundle(tmp_path / "x", random_model(), source, ByteTokenizer(), {})


def test_a_voice_of_another_width_is_refused(tmp_path: Path) -> None:
    model = random_model(bundle_config())
    with pytest.raises(BundleError, match=r"voice 'bob' has shape \(7,\)"):
        save_bundle(
            tmp_path / "x",
            model,
            _source(tmp_path),
            ByteTokenizer(),
            {},
            {"bob": Voice(torch.zeros(7))},
        )


def _with_shipped_codec(folder: Path, **changes: Any) -> Path:
    model = random_model(bundle_config())
    save_bundle(folder, model, "shipped-tiny", ByteTokenizer(), {}, **changes)
    return folder


def test_a_shipped_codec_is_named_and_not_copied(tmp_path: Path) -> None:
    bundle = load_bundle(_with_shipped_codec(tmp_path / "bundle"))
    assert not (tmp_path / "bundle" / "codec").exists()
    assert "| codec | shipped-tiny, " in (tmp_path / "bundle" / "README.md").read_text()
    latents = torch.randn(1, 3, bundle.model.config.latent_dim)
    assert torch.equal(bundle.codec.decode(latents), load_codec("shipped-tiny").decode(latents))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shipped_codec": "shipped-huge"}, "needs the codec 'shipped-huge', which this package"),
        ({"codec": "0" * 64}, "shipped-tiny is codec .* names 000000000000.* the version of"),
    ],
)
def test_a_shipped_codec_that_is_another_one_is_refused(
    tmp_path: Path, changes: dict[str, str], message: str
) -> None:
    folder = _with_shipped_codec(tmp_path / "bundle")
    _change(folder, lambda manifest: manifest.update(changes))
    with pytest.raises(BundleError, match=message):
        load_bundle(folder)


@pytest.mark.parametrize(("weights", "bits"), [("fp16", 11), ("bf16", 8)])
def test_weights_stored_as_halves_load_as_float32_within_their_precision(
    tmp_path: Path, weights: StoredPrecision, bits: int
) -> None:
    whole = _with_shipped_codec(tmp_path / "whole")
    half = _with_shipped_codec(tmp_path / "half", weights=weights)
    expected = load_bundle(whole).model.state_dict()
    loaded = load_bundle(half).model.state_dict()
    for name, value in expected.items():
        assert loaded[name].dtype == torch.float32
        # Half a unit in the last place; below the smallest normal of fp16, of that number.
        bound = 2.0**-bits * value.abs().clamp_min(2.0**-14)
        assert bool(((loaded[name] - value).abs() <= bound).all()), name
        if name in ("latent_mean", "latent_std"):
            assert torch.equal(loaded[name], value), "statistics are not rounded"
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (half, whole)]
    assert sizes[0] < 0.6 * sizes[1]
    assert f"stored as {weights}" in (half / "README.md").read_text()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (1e5, r"values up to 1e\+05, and fp16 holds .* 6.55e\+04; store them as bf16 or fp32"),
        (float("nan"), "values up to nan, .*; train again"),
        (float("inf"), "values up to inf, .*; train again"),
    ],
)
def test_a_weight_that_half_precision_does_not_hold_is_refused(
    tmp_path: Path, value: float, message: str
) -> None:
    model = random_model(bundle_config())
    with torch.no_grad():
        model.latent_proj.weight[0, 0] = value
    target = tmp_path / "bundle"
    with pytest.raises(ValueError, match=f"latent_proj.weight has {message}"):
        save_bundle(target, model, "shipped-tiny", ByteTokenizer(), {}, weights="fp16")
    assert list(tmp_path.iterdir()) == []


def test_a_shipped_bundle_is_loaded_by_its_name_if_it_has_its_digest(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = load_bundle(saved).digest
    monkeypatch.setitem(SHIPPED, DEFAULT_BUNDLE, (saved, digest))
    assert has_bundle(DEFAULT_BUNDLE)
    assert load_bundle(DEFAULT_BUNDLE).digest == digest
    monkeypatch.setitem(SHIPPED, DEFAULT_BUNDLE, (saved, "0" * 64))
    with pytest.raises(BundleError, match=r"not the 000000000000... it was shipped with"):
        load_bundle(DEFAULT_BUNDLE)


def test_a_package_without_the_shipped_bundle_says_so(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, digest in ((saved, ""), (tmp_path, "0" * 64)):
        monkeypatch.setitem(SHIPPED, DEFAULT_BUNDLE, (folder, digest))
        assert not has_bundle(DEFAULT_BUNDLE)
        with pytest.raises(BundleError, match="built without the bundle audiocalm-tiny; name the"):
            load_bundle(DEFAULT_BUNDLE)
    assert not has_bundle("another")


def test_figures_and_texts_beside_a_bundle_are_no_part_of_it(copied: Path) -> None:
    digest = load_bundle(copied).digest
    (copied / "curves.png").write_bytes(b"")
    (copied / "DATA.md").write_text("Where the data is from.")
    assert load_bundle(copied).digest == digest


@pytest.mark.skipif(not has_bundle(DEFAULT_BUNDLE), reason="this version ships no bundle")
def test_the_shipped_bundle_is_whole_and_small() -> None:
    folder = bundle_folder(DEFAULT_BUNDLE)
    bundle = load_bundle(DEFAULT_BUNDLE)
    assert bundle.voices
    codec = codec_folder(read_manifest(DEFAULT_BUNDLE)[0]["shipped_codec"])
    files = [path for place in (folder, codec) for path in place.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 40e6
