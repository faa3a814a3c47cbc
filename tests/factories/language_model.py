"""A tiny causal language model with random weights, in the form of a published folder."""

from __future__ import annotations

import json
from pathlib import Path

_TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}{% endfor %}<|end|>"
)


def write_language_model(folder: Path, seed: int = 0, has_template: bool = True) -> Path:
    """Write config, safetensors weights and a byte-level tokenizer; returns the folder."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import Qwen3Config, Qwen3ForCausalLM

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|end|>"])
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    facts = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|end|>"}
    if has_template:
        facts["chat_template"] = _TEMPLATE
    (folder / "tokenizer_config.json").write_text(json.dumps(facts))
    config = Qwen3Config(
        vocab_size=257,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=2048,
        eos_token_id=256,
        bos_token_id=None,
        initializer_range=1.0,  # sharp enough that rounding in a batch never flips a choice
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        Qwen3ForCausalLM(config).save_pretrained(str(folder))
    return folder
