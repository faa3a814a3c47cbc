from __future__ import annotations

import pytest

from pipeline.data.describe import DescribeSettings, describe
from pipeline.data.encode import EncodeResources, EncodeSettings, encode
from pipeline.data.rewriting.chat import ChatRequest, SentAudio
from pipeline.data.rewriting.local import LocalChatModel, local_model_name
from pipeline.data.rewriting.settings import LocalModelSettings
from pipeline.storage import Folder
from tests.factories.clips import small_corpus, write_clips, write_codec
from tests.factories.language_model import write_language_model

pytestmark = pytest.mark.slow  # importing transformers takes seconds

HERE = LocalModelSettings(dtype="float32", batch_size=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_language_model(tmp_path_factory.mktemp("language_model") / "tiny")


def question(text: str, **given) -> ChatRequest:
    values = {"temperature": 0.0, "max_tokens": 6} | given
    return ChatRequest(({"role": "user", "content": text},), **values)


def test_answers_come_in_order_and_each_is_kept(folder):
    model, kept = LocalChatModel(folder, HERE, "tiny"), {}
    requests = [question("word " * count) for count in range(1, 6)]
    answers = model.answer(requests, kept.setdefault)
    assert kept == dict(enumerate(answers))
    assert len(answers) == 5
    alone = [model.answer([request], lambda *_: None)[0] for request in requests]
    assert answers == alone  # padding changes nothing


def test_sampling_is_a_function_of_the_question(folder):
    model = LocalChatModel(folder, HERE, "tiny")

    def sample(text: str):
        return model.answer([question(text, temperature=1.5)], lambda *_: None)[0].text

    assert sample("a dog") == sample("a dog")
    assert len({sample(f"a dog {number}") for number in range(4)}) > 1


def test_answer_that_fills_the_limit_is_cut_off(folder):
    model = LocalChatModel(folder, HERE, "tiny")
    answers = model.answer([question(f"dog {n}", max_tokens=1) for n in range(3)], lambda *_: None)
    assert all(answer.is_cut_off for answer in answers)


def test_name_follows_the_weights(folder, tmp_path):
    other = write_language_model(tmp_path / "tiny", seed=1)
    assert local_model_name(folder) == local_model_name(folder)
    assert local_model_name(folder).startswith("tiny@")
    assert local_model_name(folder) != local_model_name(other)


def test_folder_that_is_no_model_is_refused(folder, tmp_path):
    with pytest.raises(ValueError, match=r"no \.safetensors weights"):
        local_model_name(tmp_path)
    with pytest.raises(ValueError, match="cannot read a causal language model"):
        LocalChatModel(tmp_path, HERE, "none")
    bare = write_language_model(tmp_path / "bare", has_template=False)
    with pytest.raises(ValueError, match="no chat template"):
        LocalChatModel(bare, HERE, "bare")


def test_audio_is_refused(folder):
    request = question("hear", audio=SentAudio("digest", lambda: b"", 1.0))
    with pytest.raises(ValueError, match="text only"):
        LocalChatModel(folder, HERE, "tiny").answer([request], lambda *_: None)


def test_babble_of_an_untrained_model_falls_back_and_is_counted(folder, tmp_path):
    clips = write_clips(tmp_path / "clips", small_corpus()[:3])
    latents = Folder.at(tmp_path / "latents")
    ways = EncodeSettings(resources=EncodeResources(workers=0))
    encode(clips, latents, ways, write_codec(tmp_path / "codec"))
    rewrite = {"source": "local", "model": str(folder), "max_tokens": 4, "texts_per_clip": 1}
    settings = DescribeSettings.model_validate({"rewrite": rewrite, "resources": {"workers": 0}})
    card = describe(clips, latents, Folder.at(tmp_path / "out"), settings)
    assert card["models"]["rewrite"] == {"fell_back: cut_off": 3}
    assert card["inputs"]["rewrite_model"] == local_model_name(folder)
