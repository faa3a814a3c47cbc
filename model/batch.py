"""Training batch: documents packed into rows of one length."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from model.config import MODALITIES, ModelConfig
from model.flow import interpolate, velocity_target
from model.sequence import PADDING, Document, document_layout, document_length

__all__ = ["Document", "TrainingBatch", "document_length", "pack"]


@dataclass(frozen=True)
class TrainingBatch:
    """Packed rows; every field is per position, except `speaker`, which `document` indexes.

    Attributes:
        document: Document inside its row, -1 on padding.
        segment: Prefix, clean or noisy (`model.sequence`).
        block: Block of audio, index of a prefix token.
        copy: Noisy copy.
        position: Rotary position.
        token_ids: Prefix tokens, 0 elsewhere.
        latent_inputs: History on clean positions, the noisy path point on noisy ones, else 0.
        flow_time: Of noisy positions, else 0.
        velocity_target: Of noisy positions, else 0.
        flow_mask: Positions of the flow loss.
        stop_target: 1 from the last frame of the clip on.
        stop_mask: Positions of the stop loss: clean frames of documents that end.
        expert_mask: Positions that route to the expert.
        modality: Index into `MODALITIES`, -1 on padding.
        speaker: Voice of every document, 0 without one.
    """

    document: Int[Tensor, "batch seq"]
    segment: Int[Tensor, "batch seq"]
    block: Int[Tensor, "batch seq"]
    copy: Int[Tensor, "batch seq"]
    position: Int[Tensor, "batch seq"]
    token_ids: Int[Tensor, "batch seq"]
    latent_inputs: Float[Tensor, "batch seq latent_dim"]
    flow_time: Float[Tensor, "batch seq"]
    velocity_target: Float[Tensor, "batch seq latent_dim"]
    flow_mask: Bool[Tensor, "batch seq"]
    stop_target: Float[Tensor, "batch seq"]
    stop_mask: Bool[Tensor, "batch seq"]
    expert_mask: Bool[Tensor, "batch seq"]
    modality: Int[Tensor, "batch seq"]
    speaker: Float[Tensor, "batch documents speaker_dim"]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> TrainingBatch:
        """The same batch on a device."""
        moved = {
            item.name: getattr(self, item.name).to(device, non_blocking=non_blocking)
            for item in dataclasses.fields(self)
        }
        return TrainingBatch(**moved)

    def pin_memory(self) -> TrainingBatch:
        """The same batch in page-locked memory, from which a copy to a device may overlap."""
        pinned = {f.name: getattr(self, f.name).pin_memory() for f in dataclasses.fields(self)}
        return TrainingBatch(**pinned)


_PADDING_VALUES: dict[str, float] = {"document": PADDING, "modality": PADDING}
"""What padding holds where it is not zero."""


def pack(
    rows: Sequence[Sequence[Document]], config: ModelConfig, pack_length: int
) -> TrainingBatch:
    """Documents laid one after the other, each row padded to `pack_length`.

    Args:
        rows: Documents of every row. Those that use the expert are best kept adjacent.
        config: Fixes block, latent and speaker sizes and the speaker token.
        pack_length: Positions of a row.

    Raises:
        ValueError: If there is no row, a row is empty or does not fit, or a document does not
            suit the model.
    """
    if not rows or not all(rows):
        raise ValueError("a batch needs at least one row, and every row at least one document")
    packed = [_pack_row(row, config, pack_length, index) for index, row in enumerate(rows)]
    most = max(len(row) for row in rows)
    speaker = torch.zeros(len(rows), most, config.speaker_dim)
    for index, row in enumerate(rows):
        for number, document in enumerate(row):
            if document.speaker is not None:
                speaker[index, number] = document.speaker
    fields = {name: torch.stack([row[name] for row in packed]) for name in packed[0]}
    return TrainingBatch(**fields, speaker=speaker)


def _pack_row(
    row: Sequence[Document], config: ModelConfig, pack_length: int, index: int
) -> dict[str, Tensor]:
    used = sum(document.length for document in row)
    if used > pack_length:
        raise ValueError(
            f"row {index} takes {used} positions and pack_length is {pack_length}; "
            "move a document to another row, or crop it on a block edge"
        )
    parts = [_document_fields(document, number, config) for number, document in enumerate(row)]
    fields = {}
    for name, first in parts[0].items():
        value = _PADDING_VALUES.get(name, 0)
        tail = first.new_full((pack_length - used, *first.shape[1:]), value)
        fields[name] = torch.cat([*(part[name] for part in parts), tail])
    return fields


def _document_fields(document: Document, number: int, config: ModelConfig) -> dict[str, Tensor]:
    _check_suits(document, config)
    num_text, (num_frames, latent_dim) = len(document.token_ids), document.latents.shape
    copies = document.num_copies
    layout = document_layout(num_text, num_frames, copies, config.frames_per_block)
    length = document.length
    noisy = slice(num_text + num_frames, length)
    clean = slice(num_text, num_text + num_frames)

    flow_time = document.flow_time.float().repeat_interleave(config.frames_per_block, dim=1)
    latents = document.latents.float().expand(copies, -1, -1)
    noise = document.noise.float()
    fields = {
        "document": torch.full((length,), number, dtype=torch.int32),
        "segment": layout.segment,
        "block": layout.block,
        "copy": layout.copy,
        "position": layout.position,
        "token_ids": torch.zeros(length, dtype=torch.int64),
        "latent_inputs": torch.zeros(length, latent_dim),
        "flow_time": torch.zeros(length),
        "velocity_target": torch.zeros(length, latent_dim),
        "flow_mask": torch.zeros(length, dtype=torch.bool),
        "stop_target": torch.zeros(length),
        "stop_mask": torch.zeros(length, dtype=torch.bool),
        "expert_mask": torch.full((length,), document.uses_expert),
        "modality": torch.full((length,), MODALITIES.index(document.modality), dtype=torch.int32),
    }
    fields["token_ids"][:num_text] = document.token_ids
    fields["latent_inputs"][clean] = document.history.float()
    fields["latent_inputs"][noisy] = interpolate(latents, noise, flow_time).flatten(0, 1)
    fields["flow_time"][noisy] = flow_time.flatten()
    fields["velocity_target"][noisy] = velocity_target(latents, noise).flatten(0, 1)
    fields["flow_mask"][noisy] = True
    fields["stop_target"][num_text + document.num_valid_frames - 1 : clean.stop] = 1
    fields["stop_mask"][clean] = document.has_stop
    return fields


def _check_suits(document: Document, config: ModelConfig) -> None:
    num_frames, latent_dim = document.latents.shape
    if latent_dim != config.latent_dim:
        raise ValueError(f"latents are {latent_dim} wide and the model's {config.latent_dim}")
    blocks = document.flow_time.shape[1]
    if blocks * config.frames_per_block != num_frames:
        raise ValueError(
            f"flow_time has {blocks} blocks of {config.frames_per_block} frames for "
            f"{num_frames} frames; pad to whole blocks and give one time per block and copy"
        )
    ids = document.token_ids
    if int(ids.min()) < 0 or int(ids.max()) >= config.backbone.vocab_size:
        raise ValueError(
            f"token ids reach from {int(ids.min())} to {int(ids.max())}, and the vocabulary has "
            f"{config.backbone.vocab_size}; the tokenizer is not the model's"
        )
    check_speaker(ids, document.speaker, config)


def check_speaker(
    token_ids: Int[Tensor, " text"],
    speaker: Float[Tensor, " speaker_dim"] | None,
    config: ModelConfig,
) -> None:
    """Raise `ValueError` unless there is a voice exactly where the prefix has a speaker token."""
    has_token = config.speaker_id is not None and bool((token_ids == config.speaker_id).any())
    if speaker is None:
        if has_token:
            raise ValueError("the prefix holds the speaker token and there is no voice embedding")
        return
    if not has_token:
        raise ValueError(
            f"a voice embedding needs the speaker token ({config.speaker_id}) in the prefix"
        )
    if speaker.shape[-1] != config.speaker_dim:
        raise ValueError(
            f"the voice embedding is {speaker.shape[-1]} wide and the model's {config.speaker_dim}"
        )
