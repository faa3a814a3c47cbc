"""Adapters of published codecs, with random weights, against calling their libraries directly."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from model.codec.conversion import read_published
from model.codec.protocol import AudioCodec
from model.codec.published.windowed import WindowedCodec
from model.codec.registry import build_codec, load_codec, save_codec
from model.codec.segments import Reach
from tests.factories.codec import joined_streams

pytestmark = pytest.mark.slow  # the libraries take seconds to import

OOBLECK = {
    "encoder_hidden_size": 6,
    "downsampling_ratios": [2, 4],
    "channel_multiples": [1, 2],
    "decoder_channels": 6,
    "decoder_input_channels": 3,
    "audio_channels": 2,
    "sampling_rate": 4000,
}
SAME = {
    "audio_channels": 2,
    "patch_size": 4,
    "encoder_channels": 8,
    "encoder_c_mults": [2],
    "encoder_strides": [4],
    "encoder_transformer_depths": [2],
    "latent_dim": 5,
    "dim_heads": 8,
    "sampling_rate": 4000,
}
VIBEVOICE = {
    "channels": 1,
    "hidden_size": 5,
    "kernel_size": 3,
    "num_filters": 4,
    "downsampling_ratios": [2, 4],
    "depths": [1, 1, 2],
}
CONFIGS = {
    "oobleck": {"name": "oobleck", "frames_stacked": 2, "network": OOBLECK},
    "oobleck_alone": {"name": "oobleck", "frames_stacked": 1, "network": OOBLECK},
    "same": {"name": "same", "network": SAME},
    "same_levels": {
        "name": "same",
        "network": {
            **SAME,
            "encoder_c_mults": [1, 2],
            "encoder_strides": [2, 2],
            "encoder_transformer_depths": [3, 1],
        },
    },
    "vibevoice": {"name": "vibevoice", "sample_rate": 4000, "network": VIBEVOICE},
}
TOLERANCE = {"atol": 1e-4, "rtol": 1e-4}
"""Float32 sums in another order."""


@pytest.fixture(scope="module", params=CONFIGS)
def codec(request: pytest.FixtureRequest) -> WindowedCodec:
    pytest.importorskip("diffusers")
    built = build_codec(CONFIGS[request.param])
    assert isinstance(built, WindowedCodec)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        # Some begin as the identity or with a thousandth: then reach and state would not show.
        for value in built.network.parameters():
            value.add_(0.2 * torch.randn(value.shape, generator=generator))
    return built


def library_mean(codec: WindowedCodec, waveform: torch.Tensor) -> torch.Tensor:
    if codec.name == "vibevoice":
        return codec.network.encode(waveform, sample=False).latents
    if codec.name == "same":
        return codec.network.encode(waveform).latents.transpose(1, 2)
    stacked = codec.network.encode(waveform).latent_dist.mean
    batch, width, steps = stacked.shape
    halves = stacked.reshape(batch, width, steps // codec.frames_stacked, codec.frames_stacked)
    return halves.permute(0, 2, 3, 1).flatten(2)


def library_waveform(codec: WindowedCodec, latents: torch.Tensor) -> torch.Tensor:
    if codec.name == "vibevoice":
        return codec.network.decode(latents).audio
    if codec.name == "oobleck":
        batch, frames, width = latents.shape
        steps = frames * codec.frames_stacked
        latents = latents.reshape(batch, steps, width // codec.frames_stacked)
    return codec.network.decode(latents.transpose(1, 2)).sample


def test_latents_are_the_librarys(codec: WindowedCodec) -> None:
    assert isinstance(codec, AudioCodec)
    hop_length, after = codec.timebase.hop_length, codec.encoder_reach.after
    num_frames = after + 4
    waveform = torch.randn(2, codec.num_channels, num_frames * hop_length - 3)
    found = codec.encode(waveform).mean
    assert found.shape == (2, num_frames, codec.latent_dim)
    with torch.no_grad():
        padded = F.pad(waveform, (0, 3))
        in_silence = library_mean(codec, F.pad(padded, (0, after * hop_length)))[:, :num_frames]
        alone = library_mean(codec, padded)
    torch.testing.assert_close(found, in_silence, **TOLERANCE)
    torch.testing.assert_close(found[:, :4], alone[:, :4], **TOLERANCE)


def test_deviations_are_the_librarys(codec: WindowedCodec) -> None:
    waveform = torch.randn(1, codec.num_channels, 40 * codec.timebase.hop_length)
    deviation = codec.encode(waveform).log_std.exp()
    if codec.name == "vibevoice":
        expected = torch.full_like(deviation, 0.625)
    elif codec.name == "same":
        expected = torch.full_like(deviation, 3.354e-4)
    else:
        with torch.no_grad():
            std = codec.network.encode(waveform).latent_dist.std
        halves = std.reshape(1, std.shape[1], -1, codec.frames_stacked)
        expected = halves.permute(0, 2, 3, 1).flatten(2)
    torch.testing.assert_close(deviation[:, :20], expected[:, :20], **TOLERANCE)


def test_waveforms_are_the_librarys(codec: WindowedCodec) -> None:
    latents = torch.randn(2, 150, codec.latent_dim)  # more than one piece
    with torch.no_grad():
        expected = library_waveform(codec, latents)
    found = codec.decode(latents)
    assert found.shape == (2, codec.num_channels, 150 * codec.timebase.hop_length)
    torch.testing.assert_close(found, expected, **TOLERANCE)


@pytest.mark.parametrize("seed", range(3))
def test_streams_equal_the_library_for_any_chunking(codec: WindowedCodec, seed: int) -> None:
    draw = random.Random(seed)
    latents = [torch.randn(draw.randint(1, 30), codec.latent_dim) for _ in range(5)]
    streamed = joined_streams(codec, latents, draw)
    with torch.no_grad():
        for waveform, frames in zip(streamed, latents, strict=True):
            expected = library_waveform(codec, frames[None])[0]
            torch.testing.assert_close(waveform, expected, **TOLERANCE)


def test_the_stream_is_late_by_the_stated_delay(codec: WindowedCodec) -> None:
    latents = torch.randn(1, 40, codec.latent_dim)
    (piece,), _ = codec.decode_stream(latents, [codec.initial_state()], [False])
    assert piece.shape[-1] == 40 * codec.timebase.hop_length - codec.delay_samples


def heard(function: Callable, given: torch.Tensor, frame: int, per_frame: int) -> range:
    """Frames of the input that one frame of the output depends on, by gradient."""
    given = given.clone().requires_grad_()
    (seen,) = torch.autograd.grad(function(given)[frame].square().sum(), given)
    frames = (
        seen.reshape(-1, given.shape[-1]).abs().sum(0) if per_frame > 1 else seen[0].abs().sum(-1)
    )
    index = frames.nonzero().flatten() // per_frame
    return range(int(index.min()), int(index.max()))


def bounds_closely(reach: Reach, seen: range, frame: int) -> bool:
    """Whether no frame beyond the reach is heard, and it is not much wider than what is."""
    slack = (reach.before - (frame - seen.start), reach.after - (seen.stop - frame))
    return min(slack) >= 0 and max(slack) <= 2


def test_the_stated_reach_bounds_the_gradients(codec: WindowedCodec) -> None:
    hop_length, frame = codec.timebase.hop_length, 30

    def samples_of(latents: torch.Tensor) -> torch.Tensor:
        return library_waveform(codec, latents)[0].unflatten(-1, (-1, hop_length)).movedim(1, 0)

    if codec.name != "vibevoice":  # its decoder keeps a state instead
        seen = heard(samples_of, torch.randn(1, 60, codec.latent_dim), frame, 1)
        assert bounds_closely(codec.decoder_reach, seen, frame)
    waveform = torch.randn(1, codec.num_channels, 60 * hop_length)
    seen = heard(lambda given: library_mean(codec, given)[0], waveform, frame, hop_length)
    assert bounds_closely(codec.encoder_reach, seen, frame)


@pytest.mark.parametrize("num_samples", [1, 2, 15])
def test_very_short_and_silent_input_is_finite(codec: WindowedCodec, num_samples: int) -> None:
    for waveform in (torch.zeros, torch.ones):
        posterior = codec.encode(waveform(1, codec.num_channels, num_samples))
        assert posterior.mean.shape[1] == codec.timebase.num_frames(num_samples)
        assert codec.decode(posterior.mean).isfinite().all()


def test_padding_never_changes_a_row(codec: WindowedCodec) -> None:
    hop_length = codec.timebase.hop_length
    lengths = [hop_length * 30 + 5, 1, hop_length, hop_length * 3 - 1]
    waveform = torch.randn(len(lengths), codec.num_channels, max(lengths))
    waveform[1:, :, hop_length * 12 :] = float("nan")
    together = codec.encode(waveform, torch.tensor(lengths)).mean
    for row, length in enumerate(lengths):
        alone = codec.encode(waveform[row : row + 1, :, :length]).mean
        found = together[row : row + 1, : alone.shape[1]]
        torch.testing.assert_close(found, alone, **TOLERANCE)


def test_a_wrong_channel_count_or_rate_names_both(codec: WindowedCodec) -> None:
    with pytest.raises(ValueError, match="waveform has 3 channels, the codec"):
        codec.encode(torch.zeros(1, 3, 100))
    with pytest.raises(ValueError, match="waveform has 8000 Hz, the codec 4000"):
        codec.encode(torch.zeros(1, codec.num_channels, 100), sample_rate=8000)


def test_a_folder_of_the_library_becomes_a_codec_folder(
    codec: WindowedCodec, tmp_path: Path
) -> None:
    codec.network.save_pretrained(tmp_path / "published")
    if codec.name == "vibevoice":
        features = {"sampling_rate": 4000}
        (tmp_path / "published" / "preprocessor_config.json").write_text(json.dumps(features))
    stacked = codec.frames_stacked if codec.name == "oobleck" else None
    imported = read_published(tmp_path / "published", frames_stacked=stacked)
    save_codec(imported, tmp_path / "codec")
    loaded = load_codec(tmp_path / "codec")
    assert loaded.config_dict() == codec.config_dict()
    latents = torch.randn(1, 5, codec.latent_dim)
    assert torch.equal(loaded.decode(latents), codec.decode(latents))
    with pytest.raises(ValueError, match="4000 Hz and 44100 Hz was expected"):
        read_published(tmp_path / "published", sample_rate=44_100, frames_stacked=stacked)


@pytest.fixture
def published(tmp_path: Path) -> Path:
    pytest.importorskip("diffusers")
    built = build_codec(CONFIGS["oobleck"])
    assert isinstance(built, WindowedCodec)
    built.network.save_pretrained(tmp_path / "published")
    return tmp_path / "published"


def test_pickled_weights_are_not_read(published: Path) -> None:
    weights = published / "diffusion_pytorch_model.safetensors"
    weights.rename(published / "diffusion_pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match="pickled weights are not read"):
        read_published(published)


def test_half_a_file_is_refused(published: Path) -> None:
    weights = published / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    with pytest.raises(ValueError, match="not a complete file"):
        read_published(published)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_class_name": "AutoencoderKL"}, "holds a AutoencoderKL; codecs are read of"),
        ({"downsampling_ratios": [2, 3]}, "must be even"),
        ({"decoder_channels": 4}, "do not fit"),
        ({"decoder_input_channels": 4}, "must be twice"),
        ({"colour": 1}, "does not take this configuration"),
        ({"audio_channels": 4}, "4 channels; 1 and 2 are supported"),
    ],
)
def test_other_configurations_are_refused(published: Path, changes: dict, message: str) -> None:
    config = json.loads((published / "config.json").read_text())
    (published / "config.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises(ValueError, match=message):
        read_published(published)


def test_wrong_choices_are_refused(published: Path) -> None:
    with pytest.raises(ValueError, match="frames_stacked is 0"):
        read_published(published, frames_stacked=0)
    with pytest.raises(ValueError, match="unknown settings"):
        build_codec({**CONFIGS["vibevoice"], "network": {"colour": 1}})
    with pytest.raises(ValueError, match="lacks 'frames_stacked'"):
        build_codec({"name": "oobleck", "network": OOBLECK})
    with pytest.raises(FileNotFoundError, match=r"config\.json is missing"):
        read_published(published / "elsewhere")


@pytest.mark.parametrize(
    ("name", "package"), [("oobleck", "diffusers"), ("vibevoice", "transformers")]
)
def test_a_missing_library_names_the_extra(
    name: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=f"{package}; install the extra `codecs`"):
        build_codec(CONFIGS[name])


def test_published_shapes_are_those_of_the_paper_and_the_delays_are_known() -> None:
    pytest.importorskip("diffusers")
    with torch.device("meta"):
        oobleck = build_codec({"name": "oobleck", "frames_stacked": 2, "network": {}})
        same = build_codec({"name": "same", "network": {}})
    for codec, width in ((oobleck, 128), (same, 256)):
        assert codec.timebase.hop_length == 4096
        assert (codec.timebase.sample_rate, codec.num_channels) == (44_100, 2)
        assert codec.latent_dim == width
        assert isinstance(codec, nn.Module)
    assert (oobleck.delay_samples, same.delay_samples) == (5 * 4096, 6 * 4096)
