"""Reading of prefixes and prompts: one forward pass whose keys and values the cache keeps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from model.attention import arflow_mask, attend
from model.audiocalm import AudioCALM
from model.backbone import BackboneLike
from model.experts import route_rows
from model.inference.cache import KeysValues
from model.sequence import PADDING, AudioPositions, document_layout


class PrefillAttention:
    """Attention over `[prefix | prompt blocks]` that records keys and values of every layer."""

    def __init__(self, mask: Bool[Tensor, "batch seq seq"]) -> None:
        self.mask = mask
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attention output of the next layer."""
        self._keys.append(key)
        self._values.append(value)
        return attend(query, key, value, self.mask)

    def recorded(self) -> KeysValues:
        """Keys and values of all layers."""
        return torch.stack(self._keys), torch.stack(self._values)


def read_prefixes(
    model: AudioCALM,
    backbone: BackboneLike,
    rows: Sequence[tuple[int, ...]],
    prompt: Float[Tensor, "frames latent_dim"],
    positions: Sequence[AudioPositions],
    *,
    uses_expert: bool,
    speaker: Float[Tensor, " speaker_dim"] | None,
    num_words: int = 0,
) -> tuple[KeysValues, Float[Tensor, "rows hidden"]]:
    """Keys and values of prefixes, each followed by the prompt, and the last state of each prefix.

    Args:
        model: The model.
        backbone: Its backbone, or a faster form of it.
        rows: Token ids of each prefix; shorter ones are padded on the left, so the rows end
            together.
        prompt: Normalised latents of whole blocks, the same for every row.
        positions: Rotary positions of the prompt in every row.
        uses_expert: Whether the rows route to the expert.
        speaker: Voice for the speaker token, where a prefix holds one.
        num_words: Transcript tokens at the end of the first prefix, around which the prompt reads.
    """
    config = model.config
    longest = max(len(row) for row in rows)
    padding = torch.tensor([longest - len(row) for row in rows])
    layout = document_layout(longest, len(prompt), 0, config.frames_per_block)
    token_ids = torch.zeros(len(rows), longest, dtype=torch.int64)
    document = torch.zeros(len(rows), len(layout.segment), dtype=torch.int32)
    for index, row in enumerate(rows):
        token_ids[index, longest - len(row) :] = torch.tensor(row)
        document[index, : longest - len(row)] = PADDING
    mask = arflow_mask(
        document,
        layout.segment.expand(len(rows), -1),
        layout.block.expand(len(rows), -1),
        layout.copy.expand(len(rows), -1),
        config.window_blocks,
    )
    text = (torch.arange(longest) - padding[:, None]).clamp_min(0)
    frames = torch.arange(len(prompt))
    audio = torch.stack([at.start + at.step * frames for at in positions])
    position = torch.cat([text.float(), audio], dim=1)
    if speaker is not None:
        speaker = speaker.to(model.device).expand(len(rows), 1, -1)
    clean = model.embed_clean(prompt).repeat(len(rows), 1, 1)
    if model.word_context is not None and num_words and len(prompt):
        first = torch.tensor(rows[0], device=model.device)
        clean[0] += model.words_around(first, num_words, audio[0].to(model.device))
    embeddings = torch.cat([model.embed_prefix(token_ids.to(model.device), speaker), clean], dim=1)
    attention = PrefillAttention(mask.to(model.device))
    route = route_rows([uses_expert] * len(rows), embeddings.shape[1], model.device)
    hidden = backbone(embeddings, position.to(model.device), attention, route)
    return attention.recorded(), hidden[:, longest - 1]


def aligned(rows: Sequence[KeysValues]) -> KeysValues:
    """Prefixes of different length as rows that end together, zeros before the shorter ones."""
    longest = max(keys.shape[3] for keys, _ in rows)
    keys, values = (
        torch.cat([F.pad(row[i], (0, 0, longest - row[i].shape[3], 0)) for row in rows], dim=1)
        for i in range(2)
    )
    return keys, values
