from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml

from model.codec.registry import (
    SHIPPED,
    build_codec,
    codec_digest,
    codec_folder,
    codec_preset,
    load_codec,
    save_codec,
)
from tests.factories.codec import small_codec


def test_a_saved_codec_gives_the_same_latents_and_audio(tmp_path: Path) -> None:
    codec = small_codec(seed=3)
    save_codec(codec, tmp_path)
    loaded = load_codec(str(tmp_path))
    waveform = torch.randn(1, 1, 333)
    latents = codec.encode(waveform).mean
    assert torch.equal(loaded.encode(waveform).mean, latents)
    assert torch.equal(loaded.decode(latents), codec.decode(latents))
    assert loaded.config_dict() == codec.config_dict()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["codec.json", "model.safetensors"]


def test_the_digest_follows_weights_and_configuration(tmp_path: Path) -> None:
    variants = {
        "one": small_codec(),
        "same": small_codec(),
        "weights": small_codec(seed=1),
        "config": small_codec(window=7),
    }
    for name, codec in variants.items():
        save_codec(codec, tmp_path / name)
    digests = {name: codec_digest(tmp_path / name) for name in variants}
    assert digests["one"] == digests["same"]
    assert len(set(digests.values())) == 3


def test_tiny_can_be_built_without_training() -> None:
    codec = build_codec(codec_preset("tiny"))
    assert (codec.timebase.sample_rate, codec.timebase.hop_length) == (16_000, 640)
    posterior = codec.encode(torch.zeros(1, 1, 16_001))
    assert posterior.mean.shape == (1, 26, 64)
    assert codec.decode(posterior.mean).shape == (1, 1, 26 * 640)


@pytest.mark.parametrize(
    ("name", "rate", "hop_length", "channels", "latent_dim", "millions"),
    [
        ("small", 24_000, 1920, 1, 64, (10, 60)),
        ("paper", 44_100, 4096, 2, 128, (150, 350)),
    ],
)
def test_larger_presets_have_their_shapes(
    name: str,
    rate: int,
    hop_length: int,
    channels: int,
    latent_dim: int,
    millions: tuple[int, int],
) -> None:
    with torch.device("meta"):  # shapes without the arithmetic
        codec = build_codec(codec_preset(name))
        posterior = codec.encode(torch.zeros(2, channels, 5 * hop_length - 1), sample_rate=rate)
        assert posterior.mean.shape == posterior.log_std.shape == (2, 5, latent_dim)
        assert codec.decode(posterior.mean).shape == (2, channels, 5 * hop_length)
    size = sum(value.numel() for value in codec.parameters()) / 1e6
    assert millions[0] < size < millions[1]


def test_an_unknown_architecture_is_refused() -> None:
    with pytest.raises(ValueError, match="no codec architecture 'mp3'"):
        build_codec({"name": "mp3"})


def test_an_empty_folder_is_not_a_codec(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"codec\.json is missing"):
        load_codec(tmp_path)


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    save_codec(small_codec(), tmp_path)
    weights = tmp_path / "model.safetensors"
    payload = bytearray(weights.read_bytes())
    payload[-1] ^= 1
    weights.write_bytes(bytes(payload))
    for read in (load_codec, codec_digest):
        with pytest.raises(ValueError, match="not of one codec"):
            read(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"schema_version": 99}'])
def test_a_card_that_is_not_ours_is_refused(tmp_path: Path, text: str) -> None:
    save_codec(small_codec(), tmp_path)
    (tmp_path / "codec.json").write_text(text)
    with pytest.raises(ValueError, match=r"codec\.json"):
        load_codec(tmp_path)


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    save_codec(small_codec(), tmp_path)
    card = (tmp_path / "codec.json").read_text().replace('"latent_dim": 4', '"latent_dim": 6')
    (tmp_path / "codec.json").write_text(card)
    with pytest.raises(ValueError, match="do not fit"):
        load_codec(tmp_path)


def test_code_that_reads_weights_differently_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_codec(small_codec(), tmp_path)
    load_codec(tmp_path)
    monkeypatch.setattr("model.codec.vae.istft.MAX_MAGNITUDE", 0.05)
    with pytest.raises(ValueError, match="does not decode as when it was saved"):
        load_codec(tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr("model.codec.vae.encoder.LOG_STD_RANGE", (-1.0, 1.0))
    load_codec(tmp_path)  # means are compared; the deviation is not
    monkeypatch.setattr(torch.nn.functional, "silu", torch.nn.functional.gelu)
    with pytest.raises(ValueError, match="does not encode as when it was saved"):
        load_codec(tmp_path)


def test_a_codec_without_self_check_still_loads_under_the_same_digest(tmp_path: Path) -> None:
    save_codec(small_codec(), tmp_path)
    digest = codec_digest(tmp_path)
    card = json.loads((tmp_path / "codec.json").read_text())
    assert len(card.pop("self_check")["decode"]) == 32
    (tmp_path / "codec.json").write_text(json.dumps(card))
    load_codec(tmp_path)
    assert codec_digest(tmp_path) == digest


@pytest.mark.parametrize("stored", [None, {}, {"encode": [0.0], "decode": [0.0]}])
def test_a_damaged_self_check_is_refused(tmp_path: Path, stored: object) -> None:
    save_codec(small_codec(), tmp_path)
    card = json.loads((tmp_path / "codec.json").read_text())
    (tmp_path / "codec.json").write_text(json.dumps({**card, "self_check": stored}))
    with pytest.raises(ValueError, match=r"self-check|as when it was saved"):
        load_codec(tmp_path)


def test_a_codec_that_gives_no_numbers_is_not_saved(tmp_path: Path) -> None:
    codec = small_codec()
    with torch.no_grad():
        codec.decoder.head.project.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match="not finite"):
        save_codec(codec, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_codec_is_what_its_settings_say(name: str) -> None:
    folder = codec_folder(name)
    settings = yaml.safe_load((folder / "settings.yaml").read_text())
    assert codec_digest(name) == SHIPPED[name][1]
    codec = load_codec(name)
    asked = codec_preset(settings["preset"]) | settings.get("codec", {})
    assert json.loads(json.dumps(codec.config_dict())) == json.loads(json.dumps(asked))
    assert all(value.dtype == torch.float32 for value in codec.state_dict().values())
    assert f"--codec {name}" in (folder / "CARD.md").read_text()


def test_a_shipped_codec_is_loaded_by_name_and_its_digest_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert codec_folder(tmp_path) == tmp_path
    save_codec(small_codec(), tmp_path)
    monkeypatch.setitem(SHIPPED, "shipped-tiny", (tmp_path, "0" * 64))
    with pytest.raises(ValueError, match="not the 0000"):
        load_codec("shipped-tiny")
