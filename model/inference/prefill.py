"""Prefill: one forward pass over prefix and prompt whose keys and values the cache keeps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from model.attention import attend_few
from model.audiocalm import AudioCALM
from model.backbone import BackboneLike
from model.experts import route_rows
from model.inference.cache import KeysValues
from model.sequence import AudioPositions


class PrefillAttention:
    """Attention over `[prefix | prompt blocks]` that records keys and values of every layer.

    The rules are those of `model.attention`, without a mask: the prefix is causal, and a block
    attends to a contiguous range of keys. So no score that a mask would forbid is computed, and
    GPUs keep to kernels that hold no scores in memory.

    Args:
        num_text: Tokens of the prefix.
        frames_per_block: Frames of a block of the prompt.
        past: Keys and values of the first tokens of the prefix, which are not read again.
    """

    def __init__(
        self, num_text: int, frames_per_block: int, past: KeysValues | None = None
    ) -> None:
        self._num_text, self._frames, self._past = num_text, frames_per_block, past
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attention output of the next layer."""
        if self._past is not None:
            key, value = (
                torch.cat([past[layer], own], dim=2)
                for past, own in zip(self._past, (key, value), strict=True)
            )
        self._keys.append(key)
        self._values.append(value)
        num_past = key.shape[2] - query.shape[2]
        num_own = self._num_text - num_past
        text = [heads[:, :, : self._num_text] for heads in (key, value)]
        parts = [_causal(query[:, :, :num_own], *text)] if num_own else []
        for end in range(self._num_text + self._frames, key.shape[2] + 1, self._frames):
            block = query[:, :, end - self._frames - num_past : end - num_past]
            parts.append(attend_few(block, key[:, :, :end], value[:, :, :end], None))
        return torch.cat(parts, dim=2)

    def recorded(self) -> KeysValues:
        """Keys and values of all layers."""
        return torch.stack(self._keys), torch.stack(self._values)


def _causal(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention of the last tokens of a text, each to itself and to all before it."""
    num_past = key.shape[2] - query.shape[2]
    if not num_past:
        return F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
    mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device)
    mask = mask.tril(num_past)
    return F.scaled_dot_product_attention(query, key, value, mask, enable_gqa=True)


def read_prefix(
    model: AudioCALM,
    backbone: BackboneLike,
    token_ids: Sequence[int],
    prompt: Float[Tensor, "frames latent_dim"],
    at: AudioPositions,
    *,
    uses_expert: bool,
    speaker: Float[Tensor, " speaker_dim"] | None,
    num_words: int = 0,
    past: KeysValues | None = None,
) -> tuple[KeysValues, Float[Tensor, "text hidden"]]:
    """Keys and values of one row, prefix and prompt, and the states of what is read of the prefix.

    Args:
        model: The model.
        backbone: Its backbone, or a faster form of it.
        token_ids: The prefix.
        prompt: Normalised latents of whole blocks; may be empty.
        at: Rotary positions of the prompt.
        uses_expert: Whether the row routes to the expert.
        speaker: Voice for the speaker token, where the prefix holds one.
        num_words: Transcript tokens at the end of the prefix; 0 where the model does not pace
            them.
        past: Keys and values of the row up to its transcript, or of the whole prefix.
    """
    config, num_text = model.config, len(token_ids)
    num_past = 0 if past is None else past[0].shape[3]
    num_own = num_text - num_past
    audio = at.of(torch.arange(len(prompt)))
    text = torch.arange(num_past, num_text).float()
    position = torch.cat([text, audio])[None].to(model.device)
    ids = torch.tensor([token_ids], device=model.device)
    if speaker is not None:
        speaker = speaker.to(model.device).expand(1, 1, -1)
    parts = [model.embed_prefix(ids[:, num_past:], speaker), model.embed_clean(prompt)[None]]
    embeddings = torch.cat(parts, dim=1)
    if model.word_context is not None and num_words:
        first = max(0, num_own - 1 - num_words)
        context = model.words_around(ids[0], num_words, position[0, first:])
        if num_own:
            context[num_own - 1 - first] = 0  # the end of the prefix is no word
        embeddings = torch.cat([embeddings[:, :first], embeddings[:, first:] + context], dim=1)
    attention = PrefillAttention(num_text, config.frames_per_block, past)
    route = route_rows([uses_expert], embeddings.shape[1], model.device)
    rotary = backbone.rotary(position, model.dtype)
    hidden = backbone(embeddings, rotary, attention, route)
    return attention.recorded(), hidden[0, :num_own]


def aligned(rows: Sequence[KeysValues]) -> tuple[KeysValues, tuple[int, ...]]:
    """Rows of different length that end together, and the zeros put before each."""
    longest = max(keys.shape[3] for keys, _ in rows)
    padding = tuple(longest - keys.shape[3] for keys, _ in rows)
    keys, values = (
        torch.cat(
            [F.pad(row[i], (0, 0, pad, 0)) for row, pad in zip(rows, padding, strict=True)], 1
        )
        for i in range(2)
    )
    return (keys, values), padding
