"""Training batch: documents packed into rows of one length."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from model.config import MODALITIES, ModelConfig
from model.flow import interpolate, velocity_target
from model.sequence import (
    CLEAN,
    NOISY,
    PADDING,
    PREFIX,
    Document,
    MaskIndices,
    document_length,
)
from model.words import centre_of

__all__ = ["Document", "TrainingBatch", "document_length", "pack"]


@dataclass(frozen=True)
class TrainingBatch:
    """Packed rows. Fields have one value per position, or the axes in their annotation.

    The backbone sees the first `backbone_length` positions of a row. Under the thin head that is
    the whole row. Under the local head these hold blank frames in place of the noisy copies, and
    the noisy copies follow as a suffix that only the head sees.

    Attributes:
        document: Document inside its row, -1 on padding.
        segment: Prefix, clean or noisy (`model.sequence`); blank frames count as noisy.
        block: Block of audio, index of a prefix token.
        copy: Noisy copy.
        position: Rotary position.
        token_ids: Prefix tokens, 0 elsewhere.
        latent_inputs: History on clean positions, the noisy path point on noisy ones, else 0.
        flow_time: Flow time at noisy positions, 0 elsewhere.
        velocity_target: Target at noisy positions, 0 elsewhere.
        flow_mask: Positions of the flow loss.
        stop_target: 1 from the last frame of the clip on.
        stop_mask: Positions of the stop loss: clean frames of documents that end.
        is_word: Transcript tokens of documents whose audio is placed along them: the positions of
            the duration loss.
        word_centre: Position in the row of the transcript token under an audio frame, of such a
            token its own, -1 where there is none.
        duration_target: Latent frames of a transcript token, else 0.
        modality: Index into `MODALITIES`, -1 on padding.
        speaker: Voice of every document, 0 without one; `document` indexes it.
        noisy_frames: Indices into the flattened batch of the frames of every noisy block.
        predictors: Indices into the flattened rows of the backbone of the states that predict
            those frames: the frames themselves, or under the local head the blank frames.
        expert_tokens: Indices into the flattened rows of the backbone of the expert's tokens.
        backbone_length: Positions of a row that the backbone sees.
    """

    document: Int[Tensor, "batch seq"]
    segment: Int[Tensor, "batch seq"]
    block: Int[Tensor, "batch seq"]
    copy: Int[Tensor, "batch seq"]
    position: Float[Tensor, "batch seq"]
    token_ids: Int[Tensor, "batch seq"]
    latent_inputs: Float[Tensor, "batch seq latent_dim"]
    flow_time: Float[Tensor, "batch seq"]
    velocity_target: Float[Tensor, "batch seq latent_dim"]
    flow_mask: Bool[Tensor, "batch seq"]
    stop_target: Float[Tensor, "batch seq"]
    stop_mask: Bool[Tensor, "batch seq"]
    is_word: Bool[Tensor, "batch seq"]
    word_centre: Int[Tensor, "batch seq"]
    duration_target: Float[Tensor, "batch seq"]
    modality: Int[Tensor, "batch seq"]
    speaker: Float[Tensor, "batch documents speaker_dim"]
    noisy_frames: Int[Tensor, "noisy_blocks block_frames"]
    predictors: Int[Tensor, "noisy_blocks block_frames"]
    expert_tokens: Int[Tensor, " tokens"]
    backbone_length: int

    @property
    def num_positions(self) -> int:
        """Positions that the backbone sees, padding included."""
        return self.document.shape[0] * self.backbone_length

    @property
    def mask_indices(self) -> MaskIndices:
        """Indices of the positions that the backbone sees."""
        parts = (self.document, self.segment, self.block, self.copy)
        return MaskIndices(*(part[:, : self.backbone_length] for part in parts))

    def to(self, device: torch.device | str, non_blocking: bool = False) -> TrainingBatch:
        """The same batch on a device."""
        return self._mapped(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> TrainingBatch:
        """The same batch in page-locked memory, from which a copy to a device may overlap."""
        return self._mapped(lambda tensor: tensor.pin_memory())

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> TrainingBatch:
        """The batch with a function applied to every tensor."""
        values = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
        changed: dict[str, Any] = {name: change(value) for name, value in tensors.items()}
        return dataclasses.replace(self, **changed)


def pack(
    rows: Sequence[Sequence[Document]], config: ModelConfig, pack_length: int
) -> TrainingBatch:
    """Documents laid one after the other, each row padded to `pack_length`.

    Under the local head `pack_length` covers one copy of blank frames in place of the noisy copies,
    which follow as a suffix, padded to the longest one of the batch.

    Args:
        rows: Documents of every row. Those that use the expert are best kept adjacent.
        config: Fixes block, latent and speaker sizes, the speaker token and the kind of head.
        pack_length: Positions of a row that the backbone sees.

    Raises:
        ValueError: If there is no row, a row is empty or does not fit, or a document does not
            suit the model.
    """
    if not rows or not all(rows):
        raise ValueError("a batch needs at least one row, and every row at least one document")
    for row in rows:
        for document in row:
            _check_suits(document, config)
    head, suffix = config.head.kind, 0
    if head == "local":
        suffix = max(sum(d.num_copies * len(d.latents) for d in row) for row in rows)
    width = pack_length + suffix
    fields = _padding(len(rows), width, config)
    speaker = torch.zeros(len(rows), max(len(row) for row in rows), config.speaker_dim)
    noisy_frames, predictors = [], []
    expert_tokens = [torch.zeros(0, dtype=torch.int64)]
    for index, row in enumerate(rows):
        used = sum(document.length(head) for document in row)
        if used > pack_length:
            raise ValueError(
                f"row {index} takes {used} positions and pack_length is {pack_length}; "
                "move a document to another row, or crop it on a block edge"
            )
        row_fields = {name: value[index] for name, value in fields.items()}
        start, suffix_start = 0, pack_length
        for number, document in enumerate(row):
            span = _Span.of(document, start, None if head == "thin" else suffix_start)
            _write(row_fields, document, number, span, config.frames_per_block)
            noisy = _blocks(span.noisy, config.frames_per_block)
            states = _blocks(span.states, config.frames_per_block)
            noisy_frames.append(index * width + noisy)
            predictors.append(index * pack_length + states.repeat(len(noisy) // len(states), 1))
            if document.uses_expert:
                tokens = torch.arange(span.prefix.start, span.states.stop)
                expert_tokens.append(index * pack_length + tokens)
            start, suffix_start = span.states.stop, span.noisy.stop
            if document.speaker is not None:
                speaker[index, number] = document.speaker
    return TrainingBatch(
        **fields,
        speaker=speaker,
        noisy_frames=torch.cat(noisy_frames),
        predictors=torch.cat(predictors),
        expert_tokens=torch.cat(expert_tokens),
        backbone_length=pack_length,
    )


class _Span(NamedTuple):
    """Positions of a document in its row.

    Attributes:
        prefix: Tokens.
        clean: Clean frames.
        states: Frames whose states predict the noisy ones: the noisy copies themselves, or under
            the local head blank frames. The backbone sees no further.
        noisy: Noisy copies; under the local head in the suffix of the row.
    """

    prefix: slice
    clean: slice
    states: slice
    noisy: slice

    @staticmethod
    def of(document: Document, start: int, suffix_start: int | None) -> _Span:
        """Span of a document from a position on; without a suffix there are no blank frames."""
        num_frames = len(document.latents)
        num_noisy = document.num_copies * num_frames
        clean_start = start + len(document.token_ids)
        end = clean_start + num_frames
        if suffix_start is None:
            states = noisy = slice(end, end + num_noisy)
        else:
            states = slice(end, end + num_frames)
            noisy = slice(suffix_start, suffix_start + num_noisy)
        return _Span(slice(start, clean_start), slice(clean_start, end), states, noisy)


def _blocks(frames: slice, frames_per_block: int) -> Int[Tensor, "blocks block_frames"]:
    """Positions of frames, block by block."""
    return torch.arange(frames.start, frames.stop).view(-1, frames_per_block)


_MASKS = ("flow_mask", "stop_mask", "is_word")
_SCALARS = ("position", "flow_time", "stop_target", "duration_target")


def _padding(num_rows: int, width: int, config: ModelConfig) -> dict[str, Tensor]:
    """Rows without a document."""

    def full(value: int, dtype: torch.dtype, *shape: int) -> Tensor:
        return torch.full((num_rows, width, *shape), value, dtype=dtype)

    fields = {name: full(0, torch.int32) for name in ("segment", "block", "copy")}
    fields |= {name: full(PADDING, torch.int32) for name in ("document", "modality", "word_centre")}
    fields |= {name: full(0, torch.bool) for name in _MASKS}
    fields |= {name: full(0, torch.float32) for name in _SCALARS}
    for name in ("latent_inputs", "velocity_target"):
        fields[name] = full(0, torch.float32, config.latent_dim)
    return {**fields, "token_ids": full(0, torch.int64)}


def _write(
    fields: dict[str, Tensor], document: Document, number: int, span: _Span, frames_per_block: int
) -> None:
    """Put a document into its row."""
    num_text, num_frames = len(document.token_ids), len(document.latents)
    prefix, clean, states, noisy = span
    copies, frames = document.num_copies, torch.arange(num_frames)
    position = document.positions.of(frames)
    fields["block"][prefix] = torch.arange(num_text, dtype=torch.int32)
    fields["position"][prefix] = torch.arange(num_text).float()
    for part, segment in ((prefix, PREFIX), (clean, CLEAN), (states, NOISY), (noisy, NOISY)):
        fields["document"][part] = number
        fields["modality"][part] = MODALITIES.index(document.modality)
        fields["segment"][part] = segment
    for part in (clean, states, noisy):
        # A noisy or blank frame stands at the position of its clean twin.
        twins = (part.stop - part.start) // num_frames
        fields["block"][part] = (frames // frames_per_block).int().repeat(twins)
        fields["position"][part] = position.repeat(twins)
    fields["copy"][noisy] = torch.arange(copies).int().repeat_interleave(num_frames)

    flow_time = document.flow_time.float().repeat_interleave(frames_per_block, dim=1)
    latents = document.latents.float().expand(copies, -1, -1)
    noise = document.noise.float()
    fields["token_ids"][prefix] = document.token_ids
    fields["latent_inputs"][clean] = document.history.float()
    fields["latent_inputs"][noisy] = interpolate(latents, noise, flow_time).flatten(0, 1)
    fields["flow_time"][noisy] = flow_time.flatten()
    fields["velocity_target"][noisy] = velocity_target(latents, noise).flatten(0, 1)
    fields["flow_mask"][noisy] = True
    fields["stop_target"][clean.start + document.num_valid_frames - 1 : clean.stop] = 1
    fields["stop_mask"][clean] = document.has_stop
    if document.durations:
        _write_words(fields, document, position, span)


def _write_words(
    fields: dict[str, Tensor], document: Document, position: Tensor, span: _Span
) -> None:
    """Mark the words of a document, how long they take, and where its audio frames stand."""
    start, num_words = span.prefix.start, len(document.durations)
    first = len(document.token_ids) - 1 - num_words
    words = slice(start + first, span.prefix.stop - 1)
    fields["is_word"][words] = True
    fields["duration_target"][words] = torch.tensor(document.durations)
    fields["word_centre"][words] = torch.arange(words.start, words.stop, dtype=torch.int32)
    centre = start + centre_of(position, first, num_words)
    for part in (span.clean, span.states):
        fields["word_centre"][part] = centre.repeat((part.stop - part.start) // len(centre))


def _check_suits(document: Document, config: ModelConfig) -> None:
    """Raise `ValueError` unless a document has the sizes of the model."""
    num_frames, latent_dim = document.latents.shape
    if latent_dim != config.latent_dim:
        raise ValueError(
            f"latents are {latent_dim} wide and the model takes {config.latent_dim}; use the codec "
            "that the model was configured for"
        )
    blocks = document.flow_time.shape[1]
    if blocks * config.frames_per_block != num_frames:
        raise ValueError(
            f"flow_time has {blocks} blocks of {config.frames_per_block} frames for "
            f"{num_frames} frames; pad to whole blocks and give one time per block and copy"
        )
    check_prefix(document.token_ids, document.speaker, config)


def check_prefix(
    token_ids: Int[Tensor, " text"],
    speaker: Float[Tensor, " speaker_dim"] | None,
    config: ModelConfig,
) -> None:
    """Raise `ValueError` unless the ids are in the vocabulary, and there is a voice exactly where
    the prefix has a speaker token."""
    low, high = int(token_ids.min()), int(token_ids.max())
    if low < 0 or high >= config.backbone.vocab_size:
        raise ValueError(
            f"token ids reach from {low} to {high}, and the vocabulary has "
            f"{config.backbone.vocab_size}; use the tokenizer of the model"
        )
    has_token = config.speaker_id is not None and bool((token_ids == config.speaker_id).any())
    if speaker is None:
        if has_token:
            raise ValueError(
                f"the prefix holds the speaker token ({config.speaker_id}) and there is no voice "
                "embedding; give one, or leave the token out"
            )
        return
    if not has_token:
        raise ValueError(
            f"a voice embedding needs the speaker token ({config.speaker_id}) in the prefix"
        )
    if speaker.shape[-1] != config.speaker_dim:
        raise ValueError(
            f"the voice embedding is {speaker.shape[-1]} wide and the model takes "
            f"{config.speaker_dim}; use the speaker encoder of the training data"
        )
