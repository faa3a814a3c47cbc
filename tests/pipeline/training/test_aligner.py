"""The aligner against words whose frames are known."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from pipeline.training import aligner as aligner_module
from pipeline.training.aligner import SpokenClip, even_durations, fit_aligner

NUM_SOUNDS, NUM_CHANNELS = 12, 8


def spoken(seed: int, num_clips: int) -> list[tuple[SpokenClip, Tensor]]:
    """Clips of random sounds, each as one vector for a random time with a little noise."""
    generator = torch.Generator().manual_seed(seed)
    sounds = torch.randn(NUM_SOUNDS, NUM_CHANNELS, generator=torch.Generator().manual_seed(7))
    clips = []
    for _ in range(num_clips):
        num = int(torch.randint(3, 9, (), generator=generator))
        ids = torch.randint(0, NUM_SOUNDS, (num,), generator=generator)
        while (ids[1:] == ids[:-1]).any():  # neighbours that sound the same have no boundary
            ids = torch.randint(0, NUM_SOUNDS, (num,), generator=generator)
        frames = torch.randint(1, 6, (num,), generator=generator)
        latents = sounds[ids].repeat_interleave(frames, dim=0)
        latents = latents + 0.1 * torch.randn(latents.shape, generator=generator)
        clips.append((SpokenClip(ids, latents, torch.zeros(1)), frames))
    return clips


def test_it_finds_the_frames_of_every_sound_of_clips_it_has_not_seen() -> None:
    learned = fit_aligner([clip for clip, _ in spoken(0, 200)], NUM_SOUNDS, seed=0)
    held_out = spoken(1, 20)
    found = learned.durations([clip for clip, _ in held_out])
    errors, uniform = [], []
    for durations, (clip, frames) in zip(found, held_out, strict=True):
        assert float(durations.sum()) == pytest.approx(len(clip.latents), abs=1e-3)
        errors.append((durations.cumsum(0) - frames.cumsum(0)).abs())
        even = even_durations(len(frames), len(clip.latents))
        uniform.append((even.cumsum(0) - frames.cumsum(0)).abs())
    assert float(torch.cat(errors).mean()) < 0.25  # frames
    assert float(torch.cat(uniform).mean()) > 3 * float(torch.cat(errors).mean())


def test_durations_of_a_clip_do_not_depend_on_the_clips_beside_it() -> None:
    clips = [clip for clip, _ in spoken(2, 6)]
    learned = fit_aligner(clips, NUM_SOUNDS, seed=0)
    together = learned.durations(clips)
    for clip, durations in zip(clips, together, strict=True):
        torch.testing.assert_close(learned.durations([clip])[0], durations, atol=1e-3, rtol=1e-3)


def test_the_same_seed_gives_the_same_aligner_whatever_was_drawn_before() -> None:
    clips = [clip for clip, _ in spoken(3, 4)]
    first = fit_aligner(clips, NUM_SOUNDS, seed=0)
    torch.rand(3)
    second = fit_aligner(clips, NUM_SOUNDS, seed=0)
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_posterior_sums_over_every_path_through_a_small_clip() -> None:
    """Two tokens less than the frames, against a sum over all paths written out."""
    num_frames, num_tokens = 4, 3
    likelihood = torch.randn(1, num_frames, num_tokens, generator=torch.Generator().manual_seed(0))
    ids = torch.zeros(num_tokens, dtype=torch.int64)
    batch = aligner_module._Batch.of([SpokenClip(ids, torch.zeros(num_frames, 2), torch.zeros(1))])
    weight = torch.zeros(num_frames, num_tokens)
    shares = aligner_module._SHARES
    for path in itertools.product(range(num_tokens), repeat=num_frames):
        steps = [after - before for before, after in itertools.pairwise(path)]
        ends = path[0], num_tokens - 1 - path[-1]
        if min(steps) < 0 or max(steps) >= len(shares) or max(ends) > 1:
            continue
        log = sum(float(likelihood[0, frame, token]) for frame, token in enumerate(path))
        chance = torch.tensor([shares[step] for step in steps]).prod()
        total = torch.tensor(log - sum(ends)).exp() * chance
        for frame, token in enumerate(path):
            weight[frame, token] += total
    expected = weight / weight.sum(1, keepdim=True)
    torch.testing.assert_close(aligner_module._posterior(likelihood, batch)[0], expected)


@pytest.mark.parametrize(("num_tokens", "fits"), [(0, False), (6, True), (7, False)])
def test_a_clip_needs_a_frame_for_every_three_tokens(num_tokens: int, fits: bool) -> None:
    ids = torch.zeros(num_tokens, dtype=torch.int64)
    assert SpokenClip(ids, torch.zeros(2, 3), torch.zeros(1)).can_align is fits
