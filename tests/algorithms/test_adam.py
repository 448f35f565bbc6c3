"""Steps down losses of a network's outputs against torch's Adam, and those losses' closed-form gradients."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from algorithms.critics.adam import LeastSquares
from algorithms.fisher.distributions import Distribution
from algorithms.fisher.parameters import flatten
from algorithms.parts.adam import ChainAdam, GraphAdam, Loss, adam
from algorithms.parts.gradient import NonFiniteGradient, clip
from algorithms.parts.policy import NetworkConfig, network
from algorithms.ppo import ClippedSurrogate
from tests.algorithms.problems import (
    DISTRIBUTIONS,
    assert_close,
    both,
    make_conv_policy,
    make_policy,
    make_problem,
    reference,
)

GAUSSIAN = DISTRIBUTIONS[0]


def clipped_surrogate(distribution: Distribution, beta: float) -> tuple[ClippedSurrogate, Tensor]:
    """A loss, and outputs z with points on every branch of its minimum."""
    rng = np.random.default_rng(0)
    z = torch.from_numpy(rng.standard_normal((40, distribution.width)))
    actions = distribution.sample(z, torch.from_numpy(distribution.noise(rng, 40)).double())
    log_ratios = torch.tensor([math.log(r) for r in (0.5, 0.9, 1.1, 2.0)] * 10, dtype=torch.float64)
    advantages = torch.from_numpy(rng.standard_normal(40)).abs() * torch.tensor([1.0] * 20 + [-1.0] * 20)
    advantages[7] = 0.0
    log_prob_old = distribution.log_prob(z, actions) - log_ratios
    return ClippedSurrogate(distribution, actions, advantages, log_prob_old, 0.2, beta), z


def literal(loss: ClippedSurrogate, z: Tensor) -> Tensor:
    """Equation 7 and an entropy bonus, state by state, with densities from torch.distributions."""
    p = reference(loss.distribution, z)
    total = z.new_zeros(())
    columns = p.log_prob(loss.actions), loss.log_prob_old, loss.advantages, p.entropy()
    for log_prob, old, a, h in zip(*columns, strict=True):
        rho = (log_prob - old).exp()
        held = 1.2 if rho.item() > 1.2 else 0.8 if rho.item() < 0.8 else rho
        total = total + torch.minimum(rho * a, held * a) + loss.entropy_coefficient * h
    return -total / len(z)


@both
@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_the_clipped_surrogate_and_its_gradient_are_those_of_the_definition(
    distribution: Distribution, beta: float
) -> None:
    loss, z = clipped_surrogate(distribution, beta)
    z.requires_grad_()
    expected = literal(loss, z)
    (gradient,) = torch.autograd.grad(expected, z)
    torch.testing.assert_close(loss(z), expected, rtol=1e-12, atol=0)
    assert_close(loss.gradient(z.detach()), gradient, 1e-12)
    (of_the_loss,) = torch.autograd.grad(loss(z), z)  # what networks that are no chains follow
    assert_close(of_the_loss, gradient, 1e-12)


def test_the_gradient_is_cut_where_the_advantage_pushes_a_ratio_further_out_and_only_there() -> None:
    loss, z = clipped_surrogate(GAUSSIAN, 0.0)
    moved = loss.gradient(z).any(1)
    ratios = torch.tensor([0.5, 0.9, 1.1, 2.0] * 10)
    a = loss.advantages
    assert torch.equal(moved, ~(((ratios > 1.2) & (a > 0)) | ((ratios < 0.8) & (a < 0)) | (a == 0)))


@both
@pytest.mark.parametrize("max_norm", [None, 0.05, 1e9])
def test_steps_on_a_chain_are_those_of_torch(distribution: Distribution, max_norm: float | None) -> None:
    """Five steps on the literal loss, differentiated by autograd."""
    mine, theirs = make_policy(distribution), make_policy(distribution)
    problem = make_problem(mine, n=40)
    optimiser = torch.optim.Adam(theirs.parameters(), lr=0.01, eps=1e-5)
    loss, _ = clipped_surrogate(distribution, 0.1)
    steps = adam(mine, 1e-5)
    assert isinstance(steps, ChainAdam)
    start = flatten(mine)
    steps.begin(0.01)
    for _ in range(5):
        z = theirs(problem.batch.observations)
        torch.testing.assert_close(steps.step(problem.batch.observations, loss, max_norm), z, rtol=1e-9, atol=1e-12)
        optimiser.zero_grad()
        literal(loss, z).backward()
        if max_norm is not None:
            norm = math.sqrt(sum(float(q.grad.square().sum()) for q in theirs.parameters() if q.grad is not None))
            for q in theirs.parameters():
                assert q.grad is not None
                q.grad *= min(1.0, max_norm / norm)
        optimiser.step()
    assert torch.equal(flatten(mine), start)  # until the end
    steps.end()
    torch.testing.assert_close(flatten(mine), flatten(theirs), rtol=1e-9, atol=1e-12)


def test_least_squares_and_its_gradient_are_those_of_the_definition() -> None:
    generator = torch.Generator().manual_seed(0)
    z, y = (torch.randn(9, n, generator=generator, dtype=torch.float64) for n in (1, 1))
    z.requires_grad_()
    expected = sum(((v - target) ** 2 / 2 for v, target in zip(z[:, 0], y[:, 0], strict=True)), z.new_zeros(())) / 9
    loss = LeastSquares(y[:, 0])
    torch.testing.assert_close(loss(z), expected, rtol=1e-13, atol=0)
    torch.testing.assert_close(loss.gradient(z.detach()), *torch.autograd.grad(expected, z), rtol=1e-13, atol=0)


def test_a_value_network_fitted_on_a_chain_goes_where_torch_goes() -> None:
    nets = [network((3,), 1, NetworkConfig(hidden=[5, 4]), 1.0, torch.Generator().manual_seed(0)) for _ in range(2)]
    s, y = torch.randn(20, 3, generator=torch.Generator().manual_seed(1)).double(), torch.arange(20.0).double()
    for net in nets:
        net.double()
    optimiser, steps = torch.optim.Adam(nets[1].parameters(), lr=0.01), adam(nets[0])
    steps.begin(0.01)
    for _ in range(5):
        steps.step(s, LeastSquares(y))
        optimiser.zero_grad()
        (0.5 * (nets[1](s)[:, 0] - y).square().mean()).backward()
        optimiser.step()
    steps.end()
    torch.testing.assert_close(flatten(nets[0]), flatten(nets[1]), rtol=1e-10, atol=1e-12)


class Broken:
    """A loss without a finite gradient."""

    def __call__(self, z: Tensor) -> Tensor:
        return (z * math.nan).sum()

    def gradient(self, z: Tensor) -> Tensor:
        return z * math.nan


@pytest.mark.parametrize("make", [make_policy, make_conv_policy], ids=["chain", "graph"])
def test_a_gradient_that_is_not_finite_makes_no_step(make: Any) -> None:
    policy = make(GAUSSIAN)
    steps, before = adam(policy, 1e-5), flatten(policy)
    assert isinstance(steps, GraphAdam if make is make_conv_policy else ChainAdam)
    broken: Loss = Broken()
    steps.begin(0.01)
    with pytest.raises(NonFiniteGradient):
        steps.step(make_problem(policy).batch.observations, broken, math.inf)
    steps.end()
    assert torch.equal(flatten(policy), before)
    assert not any(torch.is_tensor(t) and t.any() for t in steps.state_dict().get("state", steps.state_dict()).values())


def test_clipping_keeps_the_direction_and_what_is_short_enough() -> None:
    g = torch.tensor([3.0, -4.0], dtype=torch.float64)
    torch.testing.assert_close(clip(g, 1.0), g / 5, rtol=1e-15, atol=0)
    assert clip(g, 5.0) is g
    with pytest.raises(NonFiniteGradient):
        clip(g * math.inf, 1.0)
