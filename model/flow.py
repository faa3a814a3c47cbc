"""Rectified flow: path, velocity, sampling of times, solver grids and guidance.

Flow time runs from 0, noise, to 1, data. All of it is float32 arithmetic.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def interpolate(
    latents: Float[Tensor, "*batch latent_dim"],
    noise: Float[Tensor, "*batch latent_dim"],
    flow_time: Float[Tensor, "*batch"],
) -> Float[Tensor, "*batch latent_dim"]:
    """Point of the straight path: the noise at flow time 0, the latents at 1.

    Source:
        Rectified flow, arXiv:2209.03003, Eq. 1.
    """
    weight = flow_time.unsqueeze(-1)
    return (1 - weight) * noise + weight * latents


def velocity_target(
    latents: Float[Tensor, "*batch latent_dim"], noise: Float[Tensor, "*batch latent_dim"]
) -> Float[Tensor, "*batch latent_dim"]:
    """Velocity of the straight path from noise to data; the same at every flow time.

    Source:
        Rectified flow, arXiv:2209.03003, Eq. 1.
    """
    return latents - noise


def sample_flow_time(
    num_copies: int,
    num_blocks: int,
    generator: torch.Generator,
    *,
    mean: float = 0.4,
    std: float = 1.0,
    uniform_share: float = 0.0,
) -> Float[Tensor, "copies blocks"]:
    """Logit-normal flow times of the blocks of one document, some of them uniform.

    The times are stratified: one lies in each of copies x blocks equal shares of the distribution,
    in random order. Every time keeps the same marginal, and their mean varies less. The tails are
    not cut off: a solver evaluates at flow time 0, so training has to come near it.

    Args:
        num_copies: Noisy copies.
        num_blocks: Blocks of the document.
        generator: Source of randomness.
        mean: Mean of the logit; positive leans to the data side. 0.4 with a deviation of 1 is the
            choice of pocket-tts and, with flow time reversed, of VoxCPM.
        std: Standard deviation of the logit.
        uniform_share: Probability of a uniform time in place of a logit-normal one; it covers the
            ends, which the solver visits far more often than the logit-normal does.

    Source:
        Logit-normal times: arXiv:2403.03206, section 3.1. Stratification over the blocks of a
        document: arXiv:2503.09573.
    """
    count = num_copies * num_blocks
    quantile = torch.rand(count, generator=generator)
    quantile = (torch.randperm(count, generator=generator) + quantile) / count
    flow_time = torch.sigmoid(mean + std * torch.special.ndtri(quantile))
    if uniform_share > 0:
        is_uniform = torch.rand(count, generator=generator) < uniform_share
        flow_time = torch.where(is_uniform, torch.rand(count, generator=generator), flow_time)
    return flow_time.reshape(num_copies, num_blocks)


def time_grid(num_flow_steps: int) -> Float[Tensor, " grid"]:
    """Flow times 0 = t_0 < ... < t_n = 1 between which the Euler solver steps: 1 - cos(pi t / 2) of
    equal shares t, so that steps are shorter near the noise.

    Source:
        Sway sampling with coefficient -1: F5-TTS, arXiv:2410.06885, section 3.3.
    """
    uniform = torch.linspace(0.0, 1.0, num_flow_steps + 1)
    # sin^2 of the half angle: exactly 0 at 0; the last value is set, so that a path ends at 1.
    grid = 2 * torch.sin(torch.pi / 4 * uniform).square()
    grid[-1] = 1.0
    return grid


def guided_velocity(
    conditional: Float[Tensor, "batch block_frames latent_dim"],
    unconditional: Float[Tensor, "batch block_frames latent_dim"],
    guidance_scale: Float[Tensor, " batch"],
) -> Float[Tensor, "batch block_frames latent_dim"]:
    """Classifier-free guidance v_u + w (v_c - v_u); a scale of 1 gives the conditional velocity.

    Args:
        conditional: Velocity under the prompt, v_c.
        unconditional: Velocity under the null prompt, v_u.
        guidance_scale: w of every request.

    Source:
        arXiv:2207.12598, Eq. 6, for velocities and with w = 1 + their w.
    """
    return unconditional + guidance_scale[:, None, None] * (conditional - unconditional)
