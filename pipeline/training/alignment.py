"""The alignment of a run: how many latent frames every transcript token of its clips takes.

It is found once, before the first step of a model that paces speech, and lies in the run directory
as `alignment/<split>.parquet`: row in the index and durations of every clip with a transcript.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import torch

from model.text import Tokenizer
from pipeline.errors import IncompleteError
from pipeline.storage import Folder, table_bytes
from pipeline.training.aligner import (
    Aligner,
    SpokenClip,
    batches_by_length,
    even_durations,
    fit_aligner,
)
from pipeline.training.shards import TrainShards

logger = logging.getLogger(__name__)

ALIGNMENT = "alignment"
SPLITS = ("train", "validation", "test")
_MOST_CLIPS = 20_000
"""Clips that the aligner learns from: some ten hours of short ones."""
_GROUP = 4096
_NUM_CHANNELS = 24
_SEED = 0
_MIN_STD = 1e-3
"""Floor of a channel's standard deviation, as in `AudioCALM.normalise`."""


def align(run: Folder, shards: Folder, tokenizer: Tokenizer) -> None:
    """Align the clips of all splits, unless the run has their alignment.

    Args:
        run: Run directory.
        shards: Train-shards. The aligner learns from the train split.
        tokenizer: Encodes the transcripts.
    """
    folder = run.child(ALIGNMENT)
    if all(folder.exists(f"{split}.parquet") for split in SPLITS):
        return
    begin = time.monotonic()
    splits = {split: TrainShards(shards, split) for split in SPLITS}
    readers = {
        split: _Reader(opened, tokenizer, splits["train"].speaker_dim or 1)
        for split, opened in splits.items()
    }
    aligner = _fitted(readers["train"], tokenizer)
    for split, reader in readers.items():
        durations = pa.array(_durations(aligner, reader), pa.list_(pa.float32()))
        table = pa.table({"row": pa.array(reader.rows, pa.int64()), "durations": durations})
        folder.write_bytes(f"{split}.parquet", table_bytes(table))
        logger.info("%d clips of the %s split are aligned", len(durations), split)
    logger.info("alignment took %.0f s", time.monotonic() - begin)


class Alignment:
    """Durations of the transcript tokens of one split's clips.

    Args:
        run: Run directory.
        split: Split of the shards.

    Raises:
        IncompleteError: If the run has none.
    """

    def __init__(self, run: Folder, split: str) -> None:
        self._run, name = run, f"{ALIGNMENT}/{split}.parquet"
        if not run.exists(name):
            raise IncompleteError(
                f"{run.uri} has no {name}, which a model that paces speech needs; start the "
                "training again with `audiocalm train`"
            )
        table = run.read_table(name).combine_chunks()
        self._rows = table["row"].to_numpy()
        self._durations = table["durations"]

    def of(self, row: int, num_tokens: int) -> tuple[float, ...]:
        """Latent frames of every transcript token of a clip.

        Args:
            row: Row of the clip in the index of its split.
            num_tokens: Tokens of its transcript.

        Raises:
            IncompleteError: If the clip is unknown, or has another number of tokens.
        """
        place = int(np.searchsorted(self._rows, row))
        is_known = place < len(self._rows) and self._rows[place] == row
        durations = tuple(self._durations[place].as_py()) if is_known else ()
        if len(durations) != num_tokens:
            raise IncompleteError(
                f"the alignment of {self._run.uri} has {len(durations)} tokens of row {row} "
                f"instead of {num_tokens}; the shards have changed: give --output a new directory"
            )
        return durations


class _Reader:
    """Reads the clips with a transcript of one split as the aligner sees them."""

    def __init__(self, shards: TrainShards, tokenizer: Tokenizer, speaker_dim: int) -> None:
        self._shards, self._tokenizer, self._speaker_dim = shards, tokenizer, speaker_dim
        self.rows: list[int] = np.flatnonzero(shards.column("has_transcript")).tolist()
        weight = shards.codec.get("channel_importance")
        if weight is None or len(weight) != shards.latent_dim:
            weight = shards.latent_std
        # The channels that matter most to the ear, or else those that vary most.
        self._channels = np.argsort(-np.asarray(weight), kind="stable")[:_NUM_CHANNELS]
        self._mean = shards.latent_mean[self._channels]
        self._std = np.maximum(shards.latent_std[self._channels], _MIN_STD)

    def clip(self, number: int) -> SpokenClip:
        """The clip of a row."""
        row = self._shards.row(number)
        facts = self._shards.facts(row)
        ids = self._tokenizer.encode_words(facts.get("transcript") or "", facts.get("language"))
        latents = (self._shards.latents(row).mean[:, self._channels] - self._mean) / self._std
        voice = self._shards.embeddings.of(number)
        if voice is None:
            voice = np.zeros(self._speaker_dim, np.float32)
        return SpokenClip(
            token_ids=torch.tensor(ids, dtype=torch.int64),
            latents=torch.from_numpy(latents.astype(np.float32)),
            speaker=torch.from_numpy(voice),
        )


def _fitted(reader: _Reader, tokenizer: Tokenizer) -> Aligner | None:
    """An aligner that learned from the clips of a reader; None if none can be aligned."""
    chosen = random.Random(_SEED).sample(reader.rows, min(len(reader.rows), _MOST_CLIPS))
    clips = [clip for clip in map(reader.clip, chosen) if clip.can_align]
    if not clips:
        logger.warning("no clip has words that can be aligned: all words are spread evenly")
        return None
    logger.info("an aligner learns from %d clips", len(clips))
    return fit_aligner(clips, tokenizer.vocab_size, _SEED)


def _durations(aligner: Aligner | None, reader: _Reader) -> Iterator[list[float]]:
    """Durations of every clip with a transcript."""
    num_even = 0
    for begin in range(0, len(reader.rows), _GROUP):
        group = reader.rows[begin : begin + _GROUP]
        clips = [reader.clip(row) for row in group]
        found = [even_durations(len(clip.token_ids), len(clip.latents)) for clip in clips]
        fits = [index for index, clip in enumerate(clips) if aligner and clip.can_align]
        num_even += len(clips) - len(fits)
        if aligner is not None:
            for batch in batches_by_length([clips[index] for index in fits]):
                members = [fits[place] for place in batch]
                aligned = aligner.durations([clips[index] for index in members])
                for index, durations in zip(members, aligned, strict=True):
                    found[index] = durations
        yield from (durations.tolist() for durations in found)
    if num_even:
        logger.warning("%d clips have too few frames for their words: evenly spread", num_even)
