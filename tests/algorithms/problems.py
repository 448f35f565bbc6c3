"""Small policies and batches whose Fisher matrices can be written out."""

import numpy as np
import torch
from torch import Tensor

from algorithms.batch import Batch
from algorithms.fisher.distributions import Categorical, DiagonalGaussian, Distribution
from algorithms.fisher.parameters import as_function, assign, flatten
from algorithms.policy import NetworkConfig, Policy
from algorithms.surrogate import Surrogate

DISTRIBUTIONS: list[Distribution] = [DiagonalGaussian(2), Categorical(3)]


def make_policy(distribution: Distribution, hidden: tuple[int, ...] = (5, 4), seed: int = 0) -> Policy:
    """A float64 policy on three observations with every parameter away from zero."""
    generator = torch.Generator().manual_seed(seed)
    policy = Policy(3, distribution, NetworkConfig(hidden=list(hidden), policy_gain=1.0), generator).double()
    noise = torch.randn(len(flatten(policy)), generator=generator, dtype=torch.float64)
    assign(policy, flatten(policy) + 0.3 * noise)
    return policy


def make_problem(policy: Policy, n: int = 24, seed: int = 1, num_envs: int = 4) -> Surrogate:
    """A batch of n random states with actions of the policy and random advantages."""
    rng = np.random.default_rng(seed)
    dtype = next(policy.parameters()).dtype
    observations = torch.from_numpy(rng.standard_normal((n, 3))).to(dtype)
    noise = torch.from_numpy(policy.distribution.noise(rng, n)).to(dtype)
    with torch.no_grad():
        actions = policy.distribution.sample(policy(observations), noise)
    advantages = torch.from_numpy(rng.standard_normal(n)).to(dtype)
    batch = Batch(observations, actions, advantages - advantages.mean(), torch.zeros(n), advantages, num_envs)
    return Surrogate(policy, batch)


def dense_jacobian(problem: Surrogate) -> Tensor:
    """dz/dtheta by reverse mode, one output at a time: (B, K, d)."""
    function = as_function(problem.policy, problem.batch.observations)
    jacobian: Tensor = torch.autograd.functional.jacobian(function, problem.theta)
    return jacobian


def dense_output_fisher(z: Tensor, distribution: Distribution) -> Tensor:
    """M from its definition, written out per family: (B, K, K)."""
    if isinstance(distribution, DiagonalGaussian):
        sigma = z[:, distribution.actions :].exp()
        return torch.diag_embed(torch.cat((sigma**-2, torch.full_like(sigma, 2.0)), -1))
    p = torch.softmax(z, -1)
    return torch.diag_embed(p) - p[:, :, None] * p[:, None, :]


def dense_fisher(problem: Surrogate) -> Tensor:
    """F = (1/B) sum_s J^T M J, shape (d, d)."""
    jacobian = dense_jacobian(problem)
    m = dense_output_fisher(problem.z_old, problem.policy.distribution)
    return torch.einsum("ska,skl,slb->ab", jacobian, m, jacobian) / len(jacobian)
