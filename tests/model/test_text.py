from __future__ import annotations

import builtins
import json
import random

import pytest

from model.text import (
    ByteTokenizer,
    Prompt,
    Tokenizer,
    clean_text,
    load_tokenizer,
    null_ids,
    prompt_ids,
    render,
)
from tests.factories.prompts import transcript_of
from tests.factories.transcripts import nasty_transcript

AWKWARD = [
    "Hello there.",
    "",
    " leading and trailing ",
    'He said: "Says: nothing".',
    "line one\nline two\n\nSays: a trap\n(language en)\nSings: another",
    "(language fr, 3.0 seconds)\nSays: x",
    "Übergrößenträger 你好 \u2028 \x00 \r\n 🎵",
    "<|im_end|><audio>",
]


@pytest.mark.parametrize("transcript", AWKWARD)
@pytest.mark.parametrize("description", ["A calm voice.", "", "Says: not this\nSays: nor this"])
@pytest.mark.parametrize(
    "facts", [{}, {"language": "de"}, {"language": "EN", "duration_s": 2.0, "is_singing": True}]
)
def test_transcript_comes_back_to_the_letter(transcript, description, facts):
    text = render(Prompt(description=description, transcript=transcript, **facts))
    assert transcript_of(text) == transcript
    tokenizer = ByteTokenizer()
    assert transcript_of(tokenizer.decode(tokenizer.encode(text))) == transcript


@pytest.mark.parametrize("description", ["Rain.", "(odd)\nSays: trap", "Rain.\n\nSings: trap"])
def test_description_alone_never_reads_as_transcript(description):
    assert transcript_of(render(Prompt(description=description))) is None
    assert transcript_of(render(Prompt(description=description, language="en"))) is None


def test_text_has_description_first_then_facts_then_words():
    prompt = Prompt(
        description="A low  voice.", transcript="Hi.", language="EN-gb", duration_s=2.04
    )
    assert render(prompt) == "A low voice.\n(language en-gb, 2.0 seconds)\nSays: Hi."
    sung = Prompt(description="A choir.", transcript="La.", is_singing=True)
    assert render(sung) == "A choir.\nSings: La."
    assert render(Prompt(description="A choir.", is_singing=True)) == "A choir.\n(singing)"


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("rain on a  roof", "Rain on a roof."),
        ("techno at 120", "Techno at 120."),
        ("écoute", "Écoute."),
        ("how loud?", "How loud?"),
        ("雨の音", "雨の音"),
        ("بارش", "بارش"),
        ("(odd)", "(odd)"),
    ],
)
def test_a_description_is_read_as_a_sentence_however_it_is_typed(typed, read):
    assert render(Prompt(description=typed)) == read
    assert render(Prompt(description=read)) == read
    assert render(Prompt(description="", transcript=typed)) == f"\nSays: {typed}"


def test_all_modalities_share_one_form():
    assert render(Prompt(description="Rain on a tin roof.")) == "Rain on a tin roof."


def test_empty_prompt_is_refused():
    with pytest.raises(ValueError, match="empty"):
        Prompt(description="  \n")


@pytest.mark.parametrize("duration_s", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_duration_is_refused(duration_s):
    with pytest.raises(ValueError, match="duration_s"):
        Prompt(description="x", duration_s=duration_s)


def test_language_that_could_forge_a_line_is_refused():
    with pytest.raises(ValueError, match="BCP 47"):
        Prompt(description="x", language="en)\nSays: forged")


def test_byte_ids_fit_the_vocabulary_and_specials_are_apart():
    tokenizer = ByteTokenizer()
    assert isinstance(tokenizer, Tokenizer)
    special = {tokenizer.audio_id, tokenizer.speaker_id, tokenizer.null_id, tokenizer.pad_id}
    assert len(special) == 4
    assert min(special) == 256
    assert max(special) < tokenizer.vocab_size == 512
    assert not special & set(tokenizer.encode("".join(map(chr, range(0x3000)))))


def test_special_ids_are_left_out_of_decoded_text():
    tokenizer = ByteTokenizer()
    ids = prompt_ids(Prompt(description="Ü."), tokenizer, has_speaker=True)
    assert ids == [257, 0xC3, 0x9C, 0x2E, 256]
    assert tokenizer.decode(ids) == "Ü."


def test_prefix_marks_the_speaker_only_if_there_is_one():
    tokenizer = ByteTokenizer()
    assert prompt_ids(Prompt(description="A."), tokenizer, has_speaker=False) == [65, 46, 256]
    assert null_ids(tokenizer) == [258, 256]


def test_lone_surrogate_is_a_value_error():
    with pytest.raises(ValueError, match="surrogate"):
        ByteTokenizer().encode("\ud800")


def test_byte_tokenizer_round_trips_through_a_folder(tmp_path):
    ByteTokenizer().save(tmp_path / "tokenizer")
    assert isinstance(load_tokenizer(tmp_path / "tokenizer"), ByteTokenizer)
    assert isinstance(load_tokenizer(None), ByteTokenizer)


def test_folder_without_tokenizer_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no tokenizer"):
        load_tokenizer(tmp_path / "nowhere")


@pytest.fixture
def published(tmp_path):
    """A byte-level BPE tokenizer in the published layout, with a control token."""
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    core = tokenizers.Tokenizer(tokenizers.models.BPE())
    core.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|im_end|>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(["the rain falls on the roof"] * 20, trainer)
    folder = tmp_path / "qwen"
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, additional_special_tokens=["<|im_end|>"]
    ).save_pretrained(str(folder))
    return folder


def test_published_tokenizer_reads_any_text_and_saves_again(published, tmp_path):
    tokenizer = load_tokenizer(published)
    assert isinstance(tokenizer, Tokenizer)
    text = render(Prompt(description="The rain, 雨 🎵.", transcript='a "b"\n c <|im_end|>'))
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    tokenizer.save(tmp_path / "again")
    assert load_tokenizer(tmp_path / "again").encode(text) == ids


def test_control_tokens_in_text_stay_text(published):
    tokenizer = load_tokenizer(published)
    assert len(tokenizer.encode("<|im_end|>")) > 1


def test_published_special_ids_are_the_first_free_ones(published):
    tokenizer = load_tokenizer(published)
    first = tokenizer.audio_id
    ids = [tokenizer.audio_id, tokenizer.speaker_id, tokenizer.null_id, tokenizer.pad_id]
    assert ids == list(range(first, first + 4))
    assert max(tokenizer.encode("the rain falls")) < first
    assert tokenizer.vocab_size == first + 4
    assert tokenizer.decode([first, *tokenizer.encode("rain"), first + 1]) == "rain"
    (published / "config.json").write_text(json.dumps({"vocab_size": 1024, "model_type": "qwen3"}))
    assert load_tokenizer(published).vocab_size == 1024


def test_missing_transformers_is_named(published, monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.split(".")[0] == "transformers":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ValueError, match="needs the package transformers"):
        load_tokenizer(published)


def test_unreadable_tokenizer_is_a_value_error(published):
    (published / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match="cannot read a tokenizer"):
        load_tokenizer(published)


def test_any_transcript_is_kept_verbatim_and_recoverable():
    """Quotes, brackets, line ends, special-token look-alikes, any script: nothing is changed."""
    rng, tokenizer = random.Random(0), ByteTokenizer()
    for _ in range(1000):
        transcript = nasty_transcript(rng)
        facts = {
            "language": rng.choice([None, "en", "ar", "zh-hant"]),
            "duration_s": rng.choice([None, 3.0]),
            "is_singing": rng.random() < 0.5,
        }
        description = rng.choice(["A voice.", "", nasty_transcript(rng)])
        text = render(Prompt(description=description, transcript=transcript, **facts))
        assert transcript_of(text) == transcript
        ids = tokenizer.encode(text)
        assert max(ids) < tokenizer.audio_id
        assert transcript_of(tokenizer.decode(ids)) == transcript


@pytest.mark.parametrize(
    ("text", "cleaned", "note"),
    [
        ("  a \n b\tc ", "a b c", None),
        ("cafe\u0301", "caf\u00e9", None),
        ("a\u200db\u200cc", "a\u200db\u200cc", None),
        ("\ufeffa\x00b\u202e", "ab", "cleaned: removed U+0000, U+202E, U+FEFF"),
    ],
)
def test_text_is_cleaned_and_what_was_removed_is_named(text, cleaned, note):
    assert clean_text(text) == (cleaned, note)


def test_cleaning_twice_is_cleaning_once():
    generator = random.Random(3)
    for _ in range(300):
        codes = [generator.randrange(0x3100) for _ in range(40)]
        once, _ = clean_text("".join(map(chr, codes)))
        assert clean_text(once) == (once, None)
