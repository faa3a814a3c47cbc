"""The sampler gives what the training forward defines, whatever else is in the batch."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from model.audiocalm import AudioCALM
from model.batch import Document, pack
from model.config import ModelConfig
from model.flow import guided_velocity, solver_step, time_grid
from model.generation import GenerationRequest, Sampler, SamplingOptions
from model.sequence import NOISY
from tests.factories.model import AUDIO_ID, NULL_ID, SPEAKER_ID, random_model, tiny_config

TOLERANCE = 1e-4
"""float32: the sampler adds the same numbers in another order, through several blocks."""


def request(seed: int = 0, **changes: Any) -> GenerationRequest:
    fields: dict[str, Any] = {
        "token_ids": (3, 1, 4, 1, 5, AUDIO_ID),
        "null_ids": (NULL_ID, AUDIO_ID),
        "uses_expert": False,
        "seed": seed,
        "max_frames": 16,
        "exact_frames": 16,
        "options": SamplingOptions(num_flow_steps=3),
    }
    return GenerationRequest(**{**fields, **changes})


def voiced(seed: int = 0, **changes: Any) -> GenerationRequest:
    generator = torch.Generator().manual_seed(99)
    fields: dict[str, Any] = {
        "token_ids": (SPEAKER_ID, 7, 8, 9, AUDIO_ID),
        "null_ids": (SPEAKER_ID, NULL_ID, AUDIO_ID),
        "uses_expert": True,
        "speaker": torch.randn(5, generator=generator),
    }
    return request(seed, **{**fields, **changes})


def latents_of(sampler: Sampler, asked: GenerationRequest) -> Tensor:
    blocks = list(sampler.generate(asked))
    assert [block.is_last for block in blocks] == [False] * (len(blocks) - 1) + [True]
    return torch.cat([block.latents[: block.num_valid_frames] for block in blocks])


def packed_velocity(
    model: AudioCALM,
    asked: GenerationRequest,
    latents: Tensor,
    noisy: Tensor,
    flow_time: float,
) -> Tensor:
    """Guided velocity of the last block by the training forward, given the clean blocks."""
    config = model.config
    # A path that passes the given point at this time; at time 1 there is none, nor is it asked.
    noise = (noisy - flow_time * latents) / (1 - flow_time)
    blocks = len(latents) // config.frames_per_block

    def document(ids: tuple[int, ...]) -> Document:
        return Document(
            token_ids=torch.tensor(ids),
            latents=latents,
            history=latents,
            noise=noise[None],
            flow_time=torch.full((1, blocks), flow_time),
            num_valid_frames=len(latents),
            modality="speech" if asked.uses_expert else "music",
            uses_expert=asked.uses_expert,
            speaker=asked.speaker if SPEAKER_ID in ids else None,
        )

    batch = pack([[document(asked.token_ids), document(asked.null_ids)]], config, 128)
    with torch.no_grad():
        velocity = model(batch).velocity[0]
    noisy_part = batch.segment[0] == NOISY
    conditional, unconditional = (
        velocity[noisy_part & (batch.document[0] == i)][-config.frames_per_block :] for i in (0, 1)
    )
    return guided_velocity(
        conditional[None],
        unconditional[None],
        torch.tensor([asked.options.guidance_scale]),
        torch.tensor([float(asked.options.cfg_zero_star)]),
    )[0]


def packed_rollout(model: AudioCALM, asked: GenerationRequest, num_frames: int) -> Tensor:
    """Generation by the training forward alone: no cache, one full pass an evaluation."""
    config, options = model.config, asked.options
    frames = config.frames_per_block
    grid = time_grid(options.time_grid, options.num_flow_steps, options.grid_shift)
    generator = torch.Generator().manual_seed(asked.seed)
    latents = torch.zeros(0, config.latent_dim)
    if asked.prompt_latents is not None:
        latents = model.normalise(asked.prompt_latents)
    skip = len(latents)
    while len(latents) - skip < num_frames:
        past = latents
        block = torch.randn(frames, config.latent_dim, generator=generator)
        block = (block * options.temperature**0.5)[None]

        def velocity(state: Tensor, time: Tensor, past: Tensor = past) -> Tensor:
            # What stands in the clean copy of this block cannot matter.
            clean = torch.cat([past, torch.full((frames, config.latent_dim), 7.0)])
            noisy = torch.cat([past, state[0]])
            return packed_velocity(model, asked, clean, noisy, float(time))[None]

        for start, end in itertools.pairwise(grid):
            block = solver_step(velocity, block, start[None], end[None], options.solver)
        latents = torch.cat([latents, block[0]])
    return model.denormalise(latents[skip : skip + num_frames])


CASES: dict[str, tuple[dict[str, Any], GenerationRequest]] = {
    "sound": ({}, request()),
    "speech with a voice": ({}, voiced()),
    "voice dropped from the null row": ({}, voiced(null_ids=(NULL_ID, AUDIO_ID))),
    "null prefix longer than the prompt": ({}, request(null_ids=tuple(range(9)))),
    "one frame a block": ({"frames_per_block": 1}, request(exact_frames=5)),
    "eight frames a block": ({"frames_per_block": 8}, request(exact_frames=16)),
    "window": ({"window_blocks": 1}, request(exact_frames=16)),
    "window of two": ({"window_blocks": 2}, voiced(exact_frames=20)),
    "midpoint": ({}, request(options=SamplingOptions(num_flow_steps=2, solver="midpoint"))),
    "zero star and shift": (
        {},
        request(options=SamplingOptions(num_flow_steps=2, time_grid="shift", cfg_zero_star=True)),
    ),
    "no guidance": ({}, request(options=SamplingOptions(num_flow_steps=2, guidance_scale=1.0))),
    "continuation": ({}, voiced(prompt_latents=torch.linspace(-1, 1, 48).reshape(8, 6))),
    "continuation in a window": (
        {"window_blocks": 2},
        request(prompt_latents=torch.linspace(-1, 1, 72).reshape(12, 6)),
    ),
}


def prepared_model(config: ModelConfig) -> AudioCALM:
    model = random_model(config)
    model.set_latent_stats(torch.linspace(-1, 1, 6), torch.linspace(0.5, 2, 6))
    return model


@pytest.mark.parametrize("waits_for_stop", [False, True], ids=["fused", "unfused"])
@pytest.mark.parametrize("name", CASES)
def test_sampling_equals_a_rollout_of_the_training_forward(name: str, waits_for_stop: bool) -> None:
    changes, asked = CASES[name]
    model = prepared_model(tiny_config(**changes))
    num_frames = asked.exact_frames
    assert num_frames is not None
    if waits_for_stop:
        options = dataclasses.replace(asked.options, stop_threshold=1 - 1e-9)
        asked = dataclasses.replace(
            asked, exact_frames=None, max_frames=num_frames, options=options
        )
    given = latents_of(Sampler(model), asked)
    assert given.std() > 0.5
    torch.testing.assert_close(
        given, packed_rollout(model, asked, num_frames), atol=TOLERANCE, rtol=TOLERANCE
    )
