"""The AR-Flow sequence: `[prefix | clean blocks | noisy copies]` of one document, as indices.

A noisy copy shares the rotary positions of its clean twin, so a noisy block stands exactly where
the block it denoises will stand in the cache at inference. Under the local head one copy of blank
frames passes through the backbone in place of the noisy ones, which the head alone sees.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from model.config import MODALITIES

PREFIX, CLEAN, NOISY = 0, 1, 2
"""Values of `segment`."""

PADDING = -1
"""Value of `document` on positions that belong to none."""


class MaskIndices(NamedTuple):
    """Indices of the positions of packed rows, from which the attention mask follows.

    Attributes:
        document: Document inside its row, `PADDING` on padding.
        segment: `PREFIX`, `CLEAN` or `NOISY`.
        block: Block of an audio position; index inside the prefix of a prefix position.
        copy: Noisy copy, 0 outside the noisy segment.
    """

    document: Int[Tensor, "batch seq"]
    segment: Int[Tensor, "batch seq"]
    block: Int[Tensor, "batch seq"]
    copy: Int[Tensor, "batch seq"]


@dataclass(frozen=True)
class AudioPositions:
    """Rotary positions of audio frames.

    Attributes:
        start: Position of the first frame; of paced speech, of the first transcript token.
        ends: Frame at which each transcript token ends, not decreasing; empty without a
            transcript. Frames then stand at `start`, `start + rate` and so on.
        rate: Positions from one frame to the next where no words pace them.
    """

    start: float
    ends: tuple[float, ...] = ()
    rate: float = 1.0

    @staticmethod
    def after(num_text: int, rate: float = 1.0) -> AudioPositions:
        """Frames follow the prefix at a steady rate; music in `model.tempo` at that of its beat."""
        return AudioPositions(float(num_text), rate=rate)

    @staticmethod
    def along_words(num_text: int, durations: Sequence[float]) -> AudioPositions:
        """Frames run along the tokens of the transcript, which end the prefix but for one token.

        A frame then stands where the token stands that it speaks, so that attention finds it by
        position from the first step on. Frames after the last token go on, one position each.

        Args:
            num_text: Tokens of the prefix.
            durations: Latent frames of every transcript token.
        """
        return AudioPositions(
            float(num_text - 1 - len(durations)), tuple(itertools.accumulate(durations))
        )

    def of(self, frames: Int[Tensor, " frames"]) -> Float[Tensor, " frames"]:
        """Positions of frames, given by their numbers; of paced speech, of their middles."""
        if not self.ends:
            return self.start + self.rate * frames.float()
        middle = frames.double() + 0.5
        ends = torch.tensor(self.ends, dtype=torch.float64)
        begins = torch.cat([ends.new_zeros(1), ends[:-1]])
        token = torch.searchsorted(ends, middle, right=True)
        inside = token.clamp_max(len(ends) - 1)
        share = (middle - begins[inside]) / (ends[inside] - begins[inside])
        along = torch.where(token < len(ends), token + share, len(ends) + middle - ends[-1])
        return self.start + along.float()


@dataclass(frozen=True)
class Document:
    """One training document, already sampled: all randomness lies before it.

    Attributes:
        token_ids: Prefix: description, transcript and special tokens.
        latents: Normalised target of whole blocks; frames after the clip are encoded silence.
        history: What the clean copy shows: `latents`, possibly with history noise.
        noise: Gaussian noise of every noisy copy.
        flow_time: One flow time per copy and block, 0 is noise and 1 is data.
        num_valid_frames: Frames of the clip; stop is 1 on the last of them and on every later one.
        modality: speech, sound or music; for the account of losses.
        uses_expert: Whether its tokens route to the expert.
        speaker: Voice embedding; it overwrites the positions of the speaker token.
        has_stop: False for a crop that does not end its clip: no stop loss.
        durations: Latent frames of every transcript token, which end the prefix but for one; the
            audio runs along them. Empty without a transcript, or where speech is not paced.
        rate: Rotary positions from one frame to the next where no words pace them.

    Raises:
        ValueError: If the parts do not fit each other.
    """

    token_ids: Int[Tensor, " text"]
    latents: Float[Tensor, "frames latent_dim"]
    history: Float[Tensor, "frames latent_dim"]
    noise: Float[Tensor, "copies frames latent_dim"]
    flow_time: Float[Tensor, "copies blocks"]
    num_valid_frames: int
    modality: str
    uses_expert: bool
    speaker: Float[Tensor, " speaker_dim"] | None
    has_stop: bool = True
    durations: tuple[float, ...] = ()
    rate: float = 1.0

    def __post_init__(self) -> None:
        frames, latent_dim = self.latents.shape
        if not len(self.token_ids) or not frames:
            raise ValueError(
                f"document of {len(self.token_ids)} tokens and {frames} frames; it needs both"
            )
        if self.history.shape != self.latents.shape:
            raise ValueError(f"history is {tuple(self.history.shape)}, not {(frames, latent_dim)}")
        copies = self.flow_time.shape[0]
        if not copies or self.noise.shape != (copies, frames, latent_dim):
            raise ValueError(
                f"noise is {tuple(self.noise.shape)} for {copies} copies of {(frames, latent_dim)}"
            )
        if not 1 <= self.num_valid_frames <= frames:
            raise ValueError(f"num_valid_frames {self.num_valid_frames} is outside 1..{frames}")
        if len(self.durations) >= len(self.token_ids):
            raise ValueError(
                f"{len(self.durations)} durations for {len(self.token_ids)} tokens, of which the "
                "last is no word"
            )
        if self.modality not in MODALITIES:
            raise ValueError(f"modality {self.modality!r}; use one of {', '.join(MODALITIES)}")

    @property
    def positions(self) -> AudioPositions:
        """Rotary positions of the audio."""
        num_text = len(self.token_ids)
        if not self.durations:
            return AudioPositions.after(num_text, self.rate)
        return AudioPositions.along_words(num_text, self.durations)

    @property
    def num_copies(self) -> int:
        """Noisy copies of the clean blocks."""
        return self.noise.shape[0]

    def without_condition(self, null_ids: Sequence[int]) -> Document:
        """The same audio, noise and times under the null prefix, as guidance reads it."""
        return dataclasses.replace(
            self,
            token_ids=torch.tensor(null_ids),
            speaker=None,
            durations=(),
            rate=1.0,
        )

    def length(self, head: str = "thin") -> int:
        """Positions it takes in a row of the backbone under a kind of head."""
        return document_length(len(self.token_ids), len(self.latents), self.num_copies, head)


def has_open_end(modality: str, has_words: bool) -> bool:
    """Whether the model decides where audio ends: speech, and what has words.

    Other sounds and music last as long as the request says.
    """
    return has_words or modality == "speech"


def document_length(num_text: int, num_frames: int, num_copies: int, head: str = "thin") -> int:
    """Positions that a document takes in a row of the backbone.

    Args:
        num_text: Tokens of the prefix.
        num_frames: Clean frames.
        num_copies: Noisy copies.
        head: `HeadConfig.kind`; under `local` one copy of blank frames stands for the noisy ones.
    """
    return num_text + (1 + (num_copies if head == "thin" else 1)) * num_frames
