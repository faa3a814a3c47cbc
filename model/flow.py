"""Rectified flow: path, velocity, sampling of times, solver grids and guidance.

Flow time runs from 0, noise, to 1, data. All of it is float32 arithmetic.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

TimeGrid = Literal["uniform", "sway", "shift"]
Solver = Literal["euler", "midpoint"]

EVALUATIONS_PER_STEP: dict[str, int] = {"euler": 1, "midpoint": 2}
"""Network evaluations that one solver step costs."""


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
    is_stratified: bool = True,
) -> Float[Tensor, "copies blocks"]:
    """Logit-normal flow times of the blocks of one document, some of them uniform.

    The tails are not cut off: a solver evaluates at flow time 0, so training has to come near it.

    Args:
        num_copies: Noisy copies.
        num_blocks: Blocks of the document.
        generator: Source of randomness.
        mean: Mean of the logit; positive leans to the data side.
        std: Standard deviation of the logit.
        uniform_share: Probability of a uniform time in place of a logit-normal one; it covers the
            ends, which the solver visits far more often than the logit-normal does.
        is_stratified: Draw one time from each of copies x blocks equal shares of the distribution,
            in random order: every value keeps the same marginal, their mean varies less.

    Source:
        Logit-normal times: arXiv:2403.03206, section 3.1. Stratification over the blocks of a
        document: arXiv:2503.09573.
    """
    count = num_copies * num_blocks
    quantile = torch.rand(count, generator=generator)
    if is_stratified:
        quantile = (torch.randperm(count, generator=generator) + quantile) / count
    flow_time = torch.sigmoid(mean + std * torch.special.ndtri(quantile))
    if uniform_share > 0:
        is_uniform = torch.rand(count, generator=generator) < uniform_share
        flow_time = torch.where(is_uniform, torch.rand(count, generator=generator), flow_time)
    return flow_time.reshape(num_copies, num_blocks)


def time_grid(kind: TimeGrid, num_flow_steps: int, shift: float = 1.0) -> Float[Tensor, " grid"]:
    """Flow times 0 = t_0 < ... < t_n = 1 between which the solver steps.

    Args:
        kind: `uniform`; `sway`, t -> 1 - cos(pi t / 2), shorter steps near the noise (F5-TTS,
            arXiv:2410.06885, sway coefficient -1); `shift`, t -> t / (t + shift (1 - t)).
        num_flow_steps: Steps of the solver.
        shift: Above 1 the steps near the noise get shorter; only read by `shift`.

    Raises:
        ValueError: On an unknown kind, no step, or a shift that is not positive.
    """
    if num_flow_steps < 1:
        raise ValueError(f"num_flow_steps is {num_flow_steps}; it must be at least 1")
    if shift <= 0:
        raise ValueError(f"grid_shift is {shift}; it must be positive")
    uniform = torch.linspace(0.0, 1.0, num_flow_steps + 1)
    if kind == "uniform":
        return uniform
    if kind == "sway":
        # sin^2 of the half angle: exactly 0 at 0; the last value is set, so that a path ends at 1.
        grid = 2 * torch.sin(torch.pi / 4 * uniform).square()
    elif kind == "shift":
        grid = uniform / (uniform + shift * (1 - uniform))
    else:
        raise ValueError(f"time_grid {kind!r}; use uniform, sway or shift")
    grid[-1] = 1.0
    return grid


def evaluation_times(grid: Float[Tensor, " grid"], solver: Solver) -> Float[Tensor, " times"]:
    """Flow times at which a solver asks for the velocity along a grid, in order."""
    if solver == "euler":
        return grid[:-1]
    return torch.stack([grid[:-1], grid[:-1] + (grid[1:] - grid[:-1]) / 2], dim=1).flatten()


def solver_moves(grid: Float[Tensor, " grid"], solver: Solver) -> Float[Tensor, " times"]:
    """How far every evaluation carries the state along its velocity.

    The move is from the last state: the point of a grid. `euler` makes it the next one. The first
    of the two evaluations of `midpoint` gives only the point at which the second asks.
    """
    span = grid.diff()
    return span if solver == "euler" else torch.stack([span / 2, span], dim=1).flatten()


def guided_velocity(
    conditional: Float[Tensor, "batch block_frames latent_dim"],
    unconditional: Float[Tensor, "batch block_frames latent_dim"],
    guidance_scale: Float[Tensor, " batch"],
    uses_zero_star: Float[Tensor, " batch"] | None = None,
    rescale: Float[Tensor, " batch"] | None = None,
) -> Float[Tensor, "batch block_frames latent_dim"]:
    """Classifier-free guidance v_u + w (v_c - v_u); 1 leaves the conditional velocity.

    Args:
        conditional: Velocity under the prompt, v_c.
        unconditional: Velocity under the null prompt, v_u.
        guidance_scale: w of every request.
        uses_zero_star: 1 where v_u is first scaled to its projection on v_c, else 0; None is
            nowhere.
        rescale: How far, 0 to 1, the standard deviation of the result is brought to that of v_c;
            None is nowhere.

    Source:
        arXiv:2207.12598, written for velocities; CFG-Zero*: arXiv:2503.18886; rescaling:
        arXiv:2305.08891, Eq. 15 and 16.
    """
    base = unconditional
    if uses_zero_star is not None:
        dot = (conditional * unconditional).sum((1, 2))
        norm = unconditional.square().sum((1, 2)).clamp_min(1e-8)
        scale = torch.where(uses_zero_star > 0, dot / norm, torch.ones_like(dot))
        base = scale[:, None, None] * unconditional
    guided = base + guidance_scale[:, None, None] * (conditional - base)
    if rescale is None:
        return guided
    ratio = conditional.std((1, 2)) / guided.std((1, 2)).clamp_min(1e-8)
    return guided * (1 + rescale * (ratio - 1))[:, None, None]


def sde_drift(
    velocity: Float[Tensor, "*batch latent_dim"],
    point: Float[Tensor, "*batch latent_dim"],
    flow_time: Float[Tensor, "*#batch 1"],
    temperature: Float[Tensor, "*#batch 1"],
) -> Float[Tensor, "*batch latent_dim"]:
    """Drift v + T/2 (t v - x) of the SDE that has the marginals of the flow at every temperature.

    Its diffusion is T (1 - t); the score of a straight path from noise is (t v - x) / (1 - t).

    Args:
        velocity: v at the point.
        point: x.
        flow_time: t.
        temperature: T; 0 leaves the velocity.

    Source:
        SiT, arXiv:2401.08740, with the diffusion w = T sigma of its section 2.
    """
    return velocity + temperature / 2 * (flow_time * velocity - point)


def sde_noise_std(grid: Float[Tensor, " grid"], solver: Solver) -> Float[Tensor, " times"]:
    """Standard deviation of the noise that follows every evaluation, at temperature 1.

    The diffusion of a step is taken at its end: the last one adds none, and what comes out is
    clean. An evaluation that does not end a step adds none either.
    """
    std = ((1 - grid[1:]) * grid.diff()).sqrt()
    return std if solver == "euler" else torch.stack([torch.zeros_like(std), std], dim=1).flatten()
