"""Path, times, grids, guidance and solvers against their formulas."""

from __future__ import annotations

import math
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from model.flow import (
    EVALUATIONS_PER_STEP,
    TimeGrid,
    evaluation_times,
    guided_velocity,
    interpolate,
    sample_flow_time,
    sde_drift,
    sde_noise_std,
    solver_moves,
    time_grid,
    velocity_target,
)


def test_the_path_starts_at_noise_and_ends_at_data() -> None:
    latents, noise = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    assert torch.equal(interpolate(latents, noise, torch.zeros(2, 3)), noise)
    assert torch.equal(interpolate(latents, noise, torch.ones(2, 3)), latents)


def test_velocity_is_the_derivative_of_the_path() -> None:
    latents, noise = torch.randn(1, 4).double(), torch.randn(1, 4).double()
    time = torch.tensor([0.3], dtype=torch.float64)
    change = interpolate(latents, noise, time + 1e-4) - interpolate(latents, noise, time - 1e-4)
    torch.testing.assert_close(change / 2e-4, velocity_target(latents, noise))


@pytest.mark.parametrize("is_stratified", [False, True])
def test_flow_times_are_logit_normal(is_stratified: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    draws = [
        sample_flow_time(2, 5, generator, mean=0.4, std=1.0, is_stratified=is_stratified)
        for _ in range(2000)
    ]
    logit = torch.stack(draws).logit()
    # Both orders keep the marginal of every single value, at the first block as at the last.
    assert logit.mean((0, 1)) == pytest.approx(torch.full((5,), 0.4), abs=0.06)
    assert logit.std() == pytest.approx(1.0, abs=0.02)


def test_stratified_times_cover_every_share_of_the_distribution() -> None:
    time = sample_flow_time(2, 4, torch.Generator().manual_seed(1), mean=0.0, std=1.0)
    share = (0.5 * (1 + torch.erf(time.logit() / math.sqrt(2))) * 8).long()
    assert sorted(share.flatten().tolist()) == list(range(8))


@pytest.mark.parametrize("kind", get_args(TimeGrid))
@pytest.mark.parametrize("num_flow_steps", [1, 5])
def test_grids_rise_from_noise_to_data(kind: TimeGrid, num_flow_steps: int) -> None:
    grid = time_grid(kind, num_flow_steps, shift=3.0)
    assert len(grid) == num_flow_steps + 1
    assert grid[0] == 0
    assert grid[-1] == 1
    assert (grid.diff() > 0).all()


def test_grids_follow_their_formulas() -> None:
    uniform = torch.linspace(0, 1, 9)
    torch.testing.assert_close(time_grid("sway", 8), 1 - torch.cos(torch.pi / 2 * uniform))
    torch.testing.assert_close(
        time_grid("shift", 8, shift=2.0), uniform / (uniform + 2 * (1 - uniform))
    )
    torch.testing.assert_close(time_grid("shift", 8, shift=1.0), uniform)
    with pytest.raises(ValueError, match="num_flow_steps is 0"):
        time_grid("uniform", 0)
    with pytest.raises(ValueError, match="grid_shift is -1"):
        time_grid("shift", 4, shift=-1.0)


def test_guidance_of_one_is_the_conditional_velocity_and_of_zero_the_unconditional() -> None:
    conditional, unconditional = torch.randn(3, 4, 5), torch.randn(3, 4, 5)
    off = torch.zeros(3)
    guided = guided_velocity(conditional, unconditional, torch.tensor([1.0, 0.0, 2.5]), off)
    torch.testing.assert_close(guided[0], conditional[0])
    torch.testing.assert_close(guided[1], unconditional[1])
    torch.testing.assert_close(
        guided[2], unconditional[2] + 2.5 * (conditional[2] - unconditional[2])
    )


def test_zero_star_scales_the_unconditional_velocity_to_its_projection() -> None:
    unconditional = torch.randn(2, 4, 5)
    scale = torch.tensor([2.0, 2.0])
    # Conditional is a multiple of unconditional: the projection is all of it.
    guided = guided_velocity(3 * unconditional, unconditional, scale, torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(guided[0], 3 * unconditional[0])
    torch.testing.assert_close(guided[1], 5 * unconditional[1])
    still = torch.zeros(1, 4, 5)
    moving = torch.ones(1, 4, 5)
    guided = guided_velocity(moving, still, torch.tensor([2.0]), torch.ones(1))
    torch.testing.assert_close(guided, 2 * moving)


def test_rescaled_guidance_has_the_spread_of_the_conditional_velocity() -> None:
    conditional, unconditional = torch.randn(3, 4, 5), torch.randn(3, 4, 5)
    scale = torch.full((3,), 6.0)
    plain = guided_velocity(conditional, unconditional, scale)
    shares = torch.tensor([0.0, 0.5, 1.0])
    guided = guided_velocity(conditional, unconditional, scale, None, shares)
    assert torch.equal(guided[0], plain[0])
    torch.testing.assert_close(guided[2].std(), conditional[2].std())
    torch.testing.assert_close(
        guided[1].std(), (plain[1].std() + conditional[1].std()) / 2, atol=1e-5, rtol=1e-5
    )
    torch.testing.assert_close(guided[2] / guided[2].std(), plain[2] / plain[2].std())


def solve(velocity: Any, state: Tensor, grid: Tensor, solver: Any) -> Tensor:
    """As the sampler does: by the times and moves of the evaluations."""
    point = state
    times = zip(evaluation_times(grid, solver), solver_moves(grid, solver), strict=True)
    for index, (time, move) in enumerate(times):
        point = state + move * velocity(point, time.expand(len(state)))
        if (index + 1) % EVALUATIONS_PER_STEP[solver] == 0:
            state = point
    return state


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("midpoint", 2)])
def test_solvers_converge_with_their_order(solver: str, order: int) -> None:
    def velocity(state: Tensor, time: Tensor) -> Tensor:
        return state * time[:, None, None]

    def error(num_flow_steps: int) -> float:
        grid = torch.linspace(0, 1, num_flow_steps + 1, dtype=torch.float64)
        state = solve(velocity, torch.ones(1, 1, 1, dtype=torch.float64), grid, solver)
        return abs(float(state) - math.exp(0.5))

    rate = math.log2(error(16) / error(32))
    assert rate == pytest.approx(order, abs=0.25)


@pytest.mark.parametrize("temperature", [0.0, 1.0, 4.0])
def test_noise_on_the_way_keeps_the_distribution_and_forgets_the_start(temperature: float) -> None:
    # Of Gaussian data the velocity is known: E[data - noise | point].
    mean, std, heat = 2.0, 0.5, torch.tensor([temperature])
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(20_000, 1, generator=generator)
    grid = time_grid("uniform", 200)
    point = start
    for time, move, noise_std in zip(
        grid[:-1], solver_moves(grid, "euler"), sde_noise_std(grid, "euler"), strict=True
    ):
        spread = (time * std) ** 2 + (1 - time) ** 2
        velocity = mean + (time * std**2 - (1 - time)) / spread * (point - time * mean)
        noise = torch.randn(point.shape, generator=generator)
        drift = sde_drift(velocity, point, time[None], heat)
        point = point + move * drift + temperature**0.5 * noise_std * noise
        assert temperature > 0 or torch.equal(drift, velocity)
    # 20,000 samples: standard errors of 0.0035 and 0.0025; 200 steps leave about 0.01.
    assert float(point.mean()) == pytest.approx(mean, abs=0.03)
    assert float(point.std()) == pytest.approx(std, abs=0.03)
    kept = float(torch.corrcoef(torch.cat([start, point], dim=1).T)[0, 1])
    assert kept > 0.999 if temperature == 0 else kept < 0.8


def test_the_last_step_adds_no_noise_nor_does_an_evaluation_inside_a_step() -> None:
    grid = time_grid("sway", 4)
    euler, midpoint = (sde_noise_std(grid, solver) for solver in ("euler", "midpoint"))
    assert euler[-1] == 0
    assert (euler[:-1] > 0).all()
    assert torch.equal(midpoint[1::2], euler)
    assert not midpoint[::2].any()


def test_one_euler_step_reaches_the_data_on_the_exact_velocity() -> None:
    latents, noise = torch.randn(2, 4, 5), torch.randn(2, 4, 5)
    given = solve(
        lambda *_: velocity_target(latents, noise), noise, torch.tensor([0.0, 1]), "euler"
    )
    torch.testing.assert_close(given, latents)


def test_flow_times_reach_the_ends_that_the_solver_visits() -> None:
    generator = torch.Generator().manual_seed(0)
    times = sample_flow_time(50, 400, generator)
    assert times.min() < 0.03
    assert times.max() > 0.985
    assert bool(torch.isfinite(times).all())
    assert 0 <= times.min() <= times.max() <= 1


def test_a_share_of_the_flow_times_is_uniform() -> None:
    def share_below(limit: float, uniform_share: float) -> float:
        generator = torch.Generator().manual_seed(0)
        times = sample_flow_time(50, 400, generator, uniform_share=uniform_share)
        return float((times < limit).float().mean())

    # Logit-normal (0.4, 1): 0.02 % lie below 0.045.
    assert share_below(0.045, 0.0) < 0.001
    assert share_below(0.045, 0.5) == pytest.approx(0.0225, abs=0.005)
    assert share_below(0.5, 1.0) == pytest.approx(0.5, abs=0.02)
