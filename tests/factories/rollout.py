"""Generation by the training forward alone: no cache, one full pass per evaluation."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from model.audiocalm import AudioCALM
from model.batch import Document, pack
from model.flow import guided_velocity, time_grid
from model.inference.generation import GenerationRequest
from model.sequence import NOISY


def packed_velocity(
    model: AudioCALM,
    asked: GenerationRequest,
    latents: Tensor,
    noisy: Tensor,
    flow_time: float,
    durations: tuple[float, ...] = (),
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
            speaker=asked.speaker if config.speaker_id in ids else None,
            durations=durations if ids == asked.token_ids else (),
            rate=asked.position_rate if ids == asked.token_ids else 1.0,
        )

    batch = pack([[document(asked.token_ids), document(asked.null_ids)]], config, 128)
    with torch.no_grad():
        velocity = model(batch).velocity[0]
    noisy_part = batch.segment[0] == NOISY
    conditional, unconditional = (
        velocity[noisy_part & (batch.document[0] == i)][-config.frames_per_block :] for i in (0, 1)
    )
    scale = torch.tensor([asked.options.guidance_scale])
    return guided_velocity(conditional[None], unconditional[None], scale)[0]


def packed_durations(model: AudioCALM, asked: GenerationRequest) -> list[float]:
    """Expected frames of the transcript tokens by the training forward."""
    latents = torch.zeros(model.config.frames_per_block, model.config.latent_dim)
    document = Document(
        token_ids=torch.tensor(asked.token_ids),
        latents=latents,
        history=latents,
        noise=latents[None],
        flow_time=torch.zeros(1, 1),
        num_valid_frames=len(latents),
        modality="speech",
        uses_expert=asked.uses_expert,
        speaker=asked.speaker,
        durations=(1.0,) * asked.num_words,
    )
    batch = pack([[document]], model.config, 64)
    with torch.no_grad():
        log_duration = model(batch).log_duration
    assert log_duration is not None
    found: list[float] = log_duration[batch.is_word].exp().tolist()
    return found


def packed_rollout(
    model: AudioCALM,
    asked: GenerationRequest,
    num_frames: int,
    durations: tuple[float, ...] = (),
) -> Tensor:
    """Raw latents of a request whose block edges fit the number of frames."""
    config, options = model.config, asked.options
    frames = config.frames_per_block
    generator = torch.Generator().manual_seed(asked.seed)
    latents = torch.zeros(0, config.latent_dim)
    if asked.prompt_latents is not None:
        latents = model.normalise(asked.prompt_latents)
    skip = len(latents)
    while len(latents) - skip < num_frames:
        past = latents
        block = torch.randn(frames, config.latent_dim, generator=generator)
        block = block * options.temperature**0.5
        # What stands in the clean copy of this block cannot matter.
        clean = torch.cat([past, torch.full((frames, config.latent_dim), 7.0)])
        for start, end in itertools.pairwise(time_grid(options.num_flow_steps)):
            noisy = torch.cat([past, block])
            velocity = packed_velocity(model, asked, clean, noisy, float(start), durations)
            block = block + (end - start) * velocity
        latents = torch.cat([latents, block])
    return model.denormalise(latents[skip : skip + num_frames])


def stop_probabilities(model: AudioCALM, asked: GenerationRequest, raw: Tensor) -> Tensor:
    """Probability of `end_of_audio` at every frame of raw latents."""
    latents = model.normalise(raw)
    document = Document(
        token_ids=torch.tensor(asked.token_ids),
        latents=latents,
        history=latents,
        noise=latents[None],
        flow_time=torch.zeros(1, len(latents) // model.config.frames_per_block),
        num_valid_frames=len(latents),
        modality="music",
        uses_expert=asked.uses_expert,
        speaker=asked.speaker,
    )
    batch = pack([[document]], model.config, 64)
    with torch.no_grad():
        return model(batch).stop_logit[batch.stop_mask].sigmoid()
