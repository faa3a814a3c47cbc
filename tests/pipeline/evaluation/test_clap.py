"""CLAP is read from a folder and gives what the published implementation gives."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.evaluation.clap import ClapEmbedding

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")
RATE = 48_000


def save_clap(folder: Path) -> None:
    """A narrow CLAP model with random weights, its feature extractor and a tokenizer of words."""
    torch.manual_seed(0)
    config = transformers.ClapConfig(
        text_config={
            "vocab_size": 8, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "intermediate_size": 16, "max_position_embeddings": 32, "projection_dim": 12,
        },
        audio_config={
            "hidden_size": 16, "patch_embeds_hidden_size": 8, "depths": [1, 1],
            "num_attention_heads": [2, 2], "projection_dim": 12, "enable_fusion": False,
            "spec_size": 256, "num_mel_bins": 64, "window_size": 8, "hidden_act": "gelu",
        },
        projection_dim=12,
    )  # fmt: skip
    transformers.ClapModel(config).save_pretrained(folder)
    transformers.ClapFeatureExtractor(truncation="rand_trunc").save_pretrained(folder)
    words = {"<pad>": 1, "<unk>": 0, "a": 2, "dog": 3, "barks": 4}
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    model.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=model, pad_token="<pad>", unk_token="<unk>", model_max_length=16
    )
    fast.save_pretrained(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("clap")
    save_clap(place)
    return place


def noise(seconds: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return 0.1 * torch.randn(1, round(seconds * RATE), generator=generator)


def test_vector_and_score_are_those_of_the_model(folder: Path) -> None:
    ours = ClapEmbedding(str(folder))
    wave, text = noise(1.0), "a dog barks"
    extract = transformers.AutoFeatureExtractor.from_pretrained(folder)
    tokenize = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.ClapModel.from_pretrained(folder).eval()
    inputs = extract(wave[0].numpy(), sampling_rate=RATE, return_tensors="pt")
    with torch.inference_mode():
        found = model(**inputs, **tokenize(text, return_tensors="pt"))
    expected = torch.nn.functional.normalize(found.audio_embeds[0], dim=0).numpy()
    np.testing.assert_allclose(ours.embed(wave, RATE), expected, atol=1e-5)
    scale = float(model.logit_scale_a.detach().exp())
    logit = float(found.logits_per_audio[0, 0])
    assert ours.score(wave, RATE, text) == pytest.approx(logit / scale, abs=1e-5)


def test_long_audio_is_its_beginning_and_a_pickle_loads_the_model_again(folder: Path) -> None:
    ours = ClapEmbedding(str(folder))
    wave = noise(11.0)
    again = pickle.loads(pickle.dumps(ours))
    assert again.version == ours.version
    first = ours.embed(wave[:, : 10 * RATE], RATE)
    np.testing.assert_array_equal(again.embed(wave, RATE), first)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no CLAP model"):
        ClapEmbedding(str(tmp_path))
