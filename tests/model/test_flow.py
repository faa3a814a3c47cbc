"""Path, times, grids, guidance and solvers against their formulas."""

from __future__ import annotations

import math

import pytest
import torch

from model.flow import (
    guided_velocity,
    interpolate,
    sample_flow_time,
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


def test_flow_times_are_logit_normal() -> None:
    generator = torch.Generator().manual_seed(0)
    draws = [sample_flow_time(2, 5, generator, mean=0.4, std=1.0) for _ in range(2000)]
    logit = torch.stack(draws).logit()
    # Strata in random order keep the marginal, at the first block as at the last.
    assert logit.mean((0, 1)) == pytest.approx(torch.full((5,), 0.4), abs=0.06)
    assert logit.std() == pytest.approx(1.0, abs=0.02)


def test_stratified_times_cover_every_share_of_the_distribution() -> None:
    time = sample_flow_time(2, 4, torch.Generator().manual_seed(1), mean=0.0, std=1.0)
    share = (0.5 * (1 + torch.erf(time.logit() / math.sqrt(2))) * 8).long()
    assert sorted(share.flatten().tolist()) == list(range(8))


@pytest.mark.parametrize("num_flow_steps", [1, 5])
def test_the_grid_rises_from_noise_to_data(num_flow_steps: int) -> None:
    grid = time_grid(num_flow_steps)
    assert len(grid) == num_flow_steps + 1
    assert grid[0] == 0
    assert grid[-1] == 1
    assert (grid.diff() > 0).all()


def test_the_grid_follows_its_formula() -> None:
    uniform = torch.linspace(0, 1, 9)
    torch.testing.assert_close(time_grid(8), 1 - torch.cos(torch.pi / 2 * uniform))


def test_guidance_of_one_is_the_conditional_velocity_and_of_zero_the_unconditional() -> None:
    conditional, unconditional = torch.randn(3, 4, 5), torch.randn(3, 4, 5)
    guided = guided_velocity(conditional, unconditional, torch.tensor([1.0, 0.0, 2.5]))
    torch.testing.assert_close(guided[0], conditional[0])
    torch.testing.assert_close(guided[1], unconditional[1])
    torch.testing.assert_close(
        guided[2], unconditional[2] + 2.5 * (conditional[2] - unconditional[2])
    )


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
