"""An aligner that learns from a corpus alone which frames speak which transcript token.

It is a hidden Markov model: the tokens are its states in order, each one a Gaussian over the
leading latent channels whose mean a small convolutional network predicts from the tokens around
it and the voice. It starts from the diagonal, and expectation maximisation does the rest, as in
Glow-TTS (arXiv:2005.11129) and in the monophone systems of speech recognition. Frames are long
next to sounds, so states may be skipped.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

_WIDTH, _KERNEL, _NUM_LAYERS = 128, 5, 3
_CLIPS_PER_STEP = 32
_PASSES = 20
_MOST_STEPS = 600
_LEARNING_RATE = 2e-3
_SHARES = (0.5, 0.35, 0.12, 0.03)
"""Probability that the next frame is of the same token, of the next one, or of a later one."""
_LOG_SHARES = torch.tensor(_SHARES).log()
_MOST_TOKENS_PER_FRAME = len(_SHARES) - 1
_EARLY_TEMPERATURE, _TEMPERATURE = 0.3, 0.6
"""Factors of the log-likelihood: neighbouring frames are not independent."""
_NEVER = -1e9


@dataclass(frozen=True, eq=False)
class SpokenClip:
    """A clip to align.

    Attributes:
        token_ids: Transcript tokens.
        latents: Leading channels, normalised.
        speaker: Voice embedding; zero without one.
    """

    token_ids: Int[Tensor, " tokens"]
    latents: Float[Tensor, "frames channels"]
    speaker: Float[Tensor, " speaker_dim"]

    @property
    def can_align(self) -> bool:
        """Whether there are frames enough for the tokens."""
        return 0 < len(self.token_ids) <= _MOST_TOKENS_PER_FRAME * len(self.latents)


@dataclass(frozen=True, eq=False)
class _Batch:
    """Clips padded to one length."""

    tokens: Int[Tensor, "clips tokens"]
    is_token: Bool[Tensor, "clips tokens"]
    latents: Float[Tensor, "clips frames channels"]
    is_frame: Bool[Tensor, "clips frames"]
    speaker: Float[Tensor, "clips speaker_dim"]

    @staticmethod
    def of(clips: Sequence[SpokenClip]) -> _Batch:
        """The clips, padded with zeros."""
        pad = nn.utils.rnn.pad_sequence
        return _Batch(
            tokens=pad([clip.token_ids for clip in clips], batch_first=True),
            is_token=pad([torch.ones(len(c.token_ids), dtype=torch.bool) for c in clips], True),
            latents=pad([clip.latents for clip in clips], batch_first=True),
            is_frame=pad([torch.ones(len(c.latents), dtype=torch.bool) for c in clips], True),
            speaker=torch.stack([clip.speaker for clip in clips]),
        )


class Aligner(nn.Module):
    """Predicts the latents of every transcript token.

    Args:
        vocab_size: Token ids are below it.
        num_channels: Latent channels that are modelled.
        speaker_dim: Width of a voice embedding.
    """

    def __init__(self, vocab_size: int, num_channels: int, speaker_dim: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab_size, _WIDTH)
        self.speaker_proj = nn.Linear(speaker_dim, _WIDTH)
        self.layers = nn.ModuleList(
            nn.Conv1d(_WIDTH, _WIDTH, _KERNEL, padding="same") for _ in range(_NUM_LAYERS)
        )
        self.output_proj = nn.Linear(_WIDTH, num_channels)
        self.log_std = nn.Parameter(torch.zeros(num_channels))

    def forward(self, batch: _Batch) -> Float[Tensor, "clips frames tokens"]:
        """Log-likelihood of every frame under every token, up to a constant."""
        hidden = self.embed(batch.tokens) + self.speaker_proj(batch.speaker)[:, None]
        hidden = hidden.transpose(1, 2)
        mask = batch.is_token[:, None].float()
        for layer in self.layers:
            hidden = hidden + F.silu(layer(hidden * mask))
        mean = self.output_proj(hidden.transpose(1, 2))
        precision = torch.exp(-2 * self.log_std)
        weighted = batch.latents * precision
        square = (batch.latents * weighted).sum(-1)[:, :, None]
        square = square - 2 * weighted @ mean.transpose(1, 2)
        square = square + (mean.square() @ precision)[:, None]
        return -0.5 * square - self.log_std.sum()

    @torch.no_grad()
    def durations(self, clips: Sequence[SpokenClip]) -> list[Float[Tensor, " tokens"]]:
        """Expected frames of every token of every clip; they add up to the clip's frames."""
        batch = _Batch.of(clips)
        frames = _posterior(self(batch) * _TEMPERATURE, batch) * batch.is_frame[:, :, None]
        return [row[: len(clip.token_ids)] for row, clip in zip(frames.sum(1), clips, strict=True)]


def fit_aligner(clips: Sequence[SpokenClip], vocab_size: int, seed: int) -> Aligner:
    """An aligner that has learned from clips, all of which `can_align`.

    Args:
        clips: At least one.
        vocab_size: Number of ids of the tokenizer.
        seed: Fixes the result.
    """
    draw = random.Random(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        aligner = Aligner(vocab_size, clips[0].latents.shape[1], len(clips[0].speaker))
    optim = torch.optim.AdamW(aligner.parameters(), lr=_LEARNING_RATE)
    batches = [list(batch) for batch in batches_by_length(clips)]
    num_steps = min(_MOST_STEPS, _PASSES * len(batches))
    for step in range(num_steps):
        share = step / num_steps
        for group in optim.param_groups:
            group["lr"] = _LEARNING_RATE * min(1.0, (step + 1) / 50) * (1 - 0.95 * share)
        batch = _Batch.of([clips[index] for index in draw.choice(batches)])
        likelihood = aligner(batch)
        temperature = _EARLY_TEMPERATURE if share < 0.3 else _TEMPERATURE
        with torch.no_grad():
            scaled = likelihood * temperature
            if share < 0.5:
                scaled = scaled + (1 - 2 * share) * _diagonal(batch, width=2 + 8 * share)
            posterior = _posterior(scaled, batch)
        loss = -(posterior * likelihood).sum(-1)[batch.is_frame].mean()
        optim.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(aligner.parameters(), 1.0)
        optim.step()
    return aligner


def batches_by_length(clips: Sequence[SpokenClip]) -> Iterator[Sequence[int]]:
    """Indices of clips of similar length, a batch at a time."""
    order = sorted(range(len(clips)), key=lambda index: len(clips[index].latents))
    for begin in range(0, len(order), _CLIPS_PER_STEP):
        yield order[begin : begin + _CLIPS_PER_STEP]


def _diagonal(batch: _Batch, width: float) -> Float[Tensor, "clips frames tokens"]:
    """Log-prior that tokens take equally long, with a standard deviation of some tokens."""
    num_frames = batch.is_frame.sum(1)[:, None, None]
    num_tokens = batch.is_token.sum(1)[:, None, None]
    frame = torch.arange(batch.latents.shape[1])[None, :, None] + 0.5
    token = torch.arange(batch.tokens.shape[1])[None, None] + 0.5
    return -0.5 * ((token - frame / num_frames * num_tokens) / width).square()


def _posterior(
    likelihood: Float[Tensor, "clips frames tokens"], batch: _Batch
) -> Float[Tensor, "clips frames tokens"]:
    """Probability of every token at every frame, by the forward-backward algorithm.

    The first frame is of the first token or the one after, the last of the last or the one before.
    """
    likelihood = likelihood.masked_fill(~batch.is_token[:, None], _NEVER)
    num_frames, num_tokens = batch.is_frame.sum(1), batch.is_token.sum(1)
    from_start = torch.arange(likelihood.shape[2])
    to_end = num_tokens[:, None] - 1 - from_start
    first, final = (
        torch.where((distance >= 0) & (distance <= 1), -distance.float(), _NEVER)
        for distance in (from_start.expand(to_end.shape), to_end)
    )
    forward = [first + likelihood[:, 0]]
    for frame in range(1, likelihood.shape[1]):
        forward.append(_moved(forward[-1], forwards=True) + likelihood[:, frame])
    backward = [final]
    for frame in range(likelihood.shape[1] - 2, -1, -1):
        moved = _moved(backward[-1] + likelihood[:, frame + 1], forwards=False)
        is_end = (frame >= num_frames - 1)[:, None]
        backward.append(torch.where(is_end, final, moved))
    return torch.softmax(torch.stack(forward, 1) + torch.stack(backward[::-1], 1), dim=-1)


def _moved(
    score: Float[Tensor, "clips tokens"], *, forwards: bool
) -> Float[Tensor, "clips tokens"]:
    """Score of reaching every token from those of the frame before, or after."""
    num = score.shape[1]
    reached = []
    for step, share in enumerate(_LOG_SHARES.tolist()):
        padding = (step, 0) if forwards else (0, step)
        padded = F.pad(score, padding, value=_NEVER)
        reached.append((padded[:, :num] if forwards else padded[:, step:]) + share)
    return torch.logsumexp(torch.stack(reached), dim=0)


def even_durations(num_tokens: int, num_frames: int) -> Float[Tensor, " tokens"]:
    """Durations of a clip that cannot be aligned: all tokens take equally long."""
    return torch.full((num_tokens,), num_frames / max(1, num_tokens))
