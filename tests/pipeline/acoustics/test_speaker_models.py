from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.acoustics.speaker import SpeakerEncoder, StatisticsEncoder
from pipeline.acoustics.speaker_models import (
    XVectorEncoder,
    load_speaker_encoder,
    speaker_encoder_digest,
)
from tests.factories.clips import RATE, voice
from tests.factories.speakers import save_x_vector

pytest.importorskip("transformers")


@pytest.mark.parametrize("kind", ["WavLM", "Wav2Vec2"])
def test_the_embedding_is_that_of_the_published_implementation(tmp_path, kind):
    model, extractor = save_x_vector(tmp_path, kind)
    encoder: SpeakerEncoder = XVectorEncoder(str(tmp_path))
    wave = voice(2.0, 120.0)[None]
    inputs = extractor(wave[0], sampling_rate=RATE, return_tensors="pt")
    with torch.inference_mode():
        expected = torch.nn.functional.normalize(model(**inputs).embeddings[0], dim=0).numpy()
    found = encoder.embed(wave, RATE)
    assert found.shape == (encoder.speaker_dim,) == (24,)
    np.testing.assert_allclose(found, expected, atol=1e-5)  # float32 in another order
    assert np.linalg.norm(found) == pytest.approx(1.0, abs=1e-5)


def test_any_length_rate_and_number_of_channels_is_embedded(tmp_path):
    save_x_vector(tmp_path, "WavLM")
    encoder = XVectorEncoder(str(tmp_path))
    for wave in (voice(0.02, 120.0)[None], np.stack([voice(0.5, 120.0)] * 2)):
        assert np.isfinite(encoder.embed(wave, 44_100)).all()
    assert not encoder.embed(np.zeros((1, RATE), np.float32), RATE).any()
    assert not encoder.embed(np.zeros((1, 0), np.float32), RATE).any()


def test_a_long_clip_gives_its_middle(tmp_path):
    save_x_vector(tmp_path, "WavLM")
    encoder = XVectorEncoder(str(tmp_path))
    middle = np.random.default_rng(0).standard_normal((1, 20 * RATE)).astype(np.float32) * 0.1
    ends = np.full((1, RATE), 0.5, np.float32)
    whole = encoder.embed(np.concatenate([ends, middle, ends], axis=1), RATE)
    np.testing.assert_array_equal(whole, encoder.embed(middle, RATE))


def test_name_and_digest_tell_the_weights(tmp_path):
    save_x_vector(tmp_path / "a", "WavLM", seed=0)
    save_x_vector(tmp_path / "b", "WavLM", seed=1)
    digests = [speaker_encoder_digest(str(tmp_path / name)) for name in "ab"]
    assert digests[0] != digests[1]
    assert XVectorEncoder(str(tmp_path / "a")).name == f"wavlm-{digests[0][:16]}"


def test_without_a_folder_the_built_in_encoder_is_used():
    assert isinstance(load_speaker_encoder(None), StatisticsEncoder)
    assert speaker_encoder_digest(None) == ""


def test_pickled_weights_are_refused(tmp_path):
    save_x_vector(tmp_path, "WavLM")
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(ValueError, match="safetensors is missing"):
        XVectorEncoder(str(tmp_path))


def test_another_kind_of_model_is_refused(tmp_path):
    save_x_vector(tmp_path, "WavLM")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="holds no speaker encoder"):
        XVectorEncoder(str(tmp_path))
