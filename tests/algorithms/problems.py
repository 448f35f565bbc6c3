"""Small policies and batches whose Fisher matrices can be written out, and those matrices from their definitions.

Everything here is float64. A definition takes jacobians from torch.autograd, one output at a time, densities from
torch.distributions, and the input patches of convolutions from explicit loops.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from algorithms.fisher.distributions import (
    Categorical,
    DiagonalGaussian,
    Distribution,
    MultiCategorical,
    UnitGaussian,
)
from algorithms.fisher.parameters import as_function, assign, flatten
from algorithms.parts.batch import Batch
from algorithms.parts.policy import NetworkConfig, Policy
from algorithms.parts.surrogate import Surrogate

DISTRIBUTIONS: list[Distribution] = [DiagonalGaussian(2), Categorical(3)]

CHANNELS, SIDE = 2, 3
"""Shape of the images that convolutional policies see."""


def make_policy(
    distribution: Distribution, hidden: tuple[int, ...] = (5, 4), seed: int = 0, activation: str = "tanh"
) -> Policy:
    """A float64 policy on three observations with every parameter away from zero."""
    generator = torch.Generator().manual_seed(seed)
    config = NetworkConfig(hidden=list(hidden), activation=activation, policy_gain=1.0)
    policy = Policy((3,), distribution, config, generator).double()
    noise = torch.randn(len(flatten(policy)), generator=generator, dtype=torch.float64)
    assign(policy, flatten(policy) + 0.3 * noise)
    return policy


def make_conv_policy(
    distribution: Distribution, kernel: int = 3, stride: int = 2, padding: int = 1, seed: int = 0
) -> Policy:
    """A float64 policy on small images: one convolution of two channels, tanh, and a linear head on all its pixels.

    By default the kernel has four positions, which overlap and reach over the edge.
    """
    policy = make_policy(distribution, hidden=())
    head = policy.network[-1]
    assert isinstance(head, nn.Linear)
    pixels = ((SIDE + 2 * padding - kernel) // stride + 1) ** 2
    policy.network = nn.Sequential(
        nn.Conv2d(CHANNELS, 2, kernel, stride, padding),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(2 * pixels, head.out_features),
    ).double()
    generator = torch.Generator().manual_seed(seed)
    assign(policy, 0.5 * torch.randn(len(flatten(policy)), generator=generator, dtype=torch.float64))
    return policy


def make_problem(policy: Policy, n: int = 24, seed: int = 1, num_envs: int = 4) -> Surrogate:
    """A batch of n random states with actions of the policy and random advantages."""
    rng = np.random.default_rng(seed)
    dtype = next(policy.parameters()).dtype
    observations = torch.from_numpy(rng.standard_normal((n, *_state_shape(policy)))).to(dtype)
    noise = torch.from_numpy(policy.distribution.noise(rng, n)).to(dtype)
    with torch.no_grad():
        actions = policy.distribution.sample(policy(observations), noise)
    advantages = torch.from_numpy(rng.standard_normal(n)).to(dtype)
    batch = Batch(observations, actions, advantages - advantages.mean(), torch.zeros(n), advantages, num_envs)
    return Surrogate(policy, batch)


POLICIES: dict[str, Callable[[], Policy]] = {
    "gaussian": lambda: make_policy(DISTRIBUTIONS[0]),
    "categorical": lambda: make_policy(DISTRIBUTIONS[1]),
    "convolution": lambda: make_conv_policy(DISTRIBUTIONS[1]),
}
every_policy = pytest.mark.parametrize("policy", POLICIES)
both = pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=lambda d: type(d).__name__)


def random_vectors(problem: Surrogate, *columns: int, seed: int = 0) -> Tensor:
    """A vector (d,) of standard normal entries, or a block of so many columns."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(len(problem.theta), *columns, generator=generator, dtype=torch.float64)


def assert_close(actual: Tensor, expected: Tensor, relative: float = 1e-10) -> None:
    """Equal up to `relative` times the largest entry of what is expected."""
    torch.testing.assert_close(actual, expected, rtol=0, atol=relative * float(expected.abs().max()))


class Joint(torch.distributions.Categorical):
    """Independent choices as one among all their combinations, of which it knows the probabilities alone."""

    def __init__(self, z: Tensor, sizes: tuple[int, ...]) -> None:
        joint = torch.zeros(len(z), 1, dtype=z.dtype)
        for logits in z.split(sizes, -1):
            joint = (joint.unsqueeze(-1) + logits.unsqueeze(1)).flatten(1)
        self.sizes = sizes
        super().__init__(logits=joint)

    def combinations(self) -> Tensor:
        """Every action, in the order of `probs`: (n, A)."""
        return torch.cartesian_prod(*map(torch.arange, self.sizes)).view(-1, len(self.sizes))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        return self.combinations()[super().sample(sample_shape)]

    def log_prob(self, value: Tensor) -> Tensor:
        found: Tensor = super().log_prob((value[:, None] == self.combinations()).all(-1).long().argmax(-1))
        return found


def reference(distribution: Distribution, z: Tensor) -> torch.distributions.Distribution:
    """The family as torch.distributions has it."""
    match distribution:
        case DiagonalGaussian():
            mean, log_std = z.chunk(2, -1)
            return torch.distributions.Independent(torch.distributions.Normal(mean, log_std.exp()), 1)
        case UnitGaussian():
            return torch.distributions.Independent(torch.distributions.Normal(z, torch.ones_like(z)), 1)
        case MultiCategorical():
            return Joint(z, distribution.sizes)
    return torch.distributions.Categorical(logits=z)


def dense_jacobian(problem: Surrogate) -> Tensor:
    """dz/dtheta by reverse mode, one output at a time: (B, K, d)."""
    function = as_function(problem.policy, problem.batch.observations)
    jacobian: Tensor = torch.autograd.functional.jacobian(function, problem.theta)
    return jacobian


def dense_output_fisher(z: Tensor, distribution: Distribution) -> Tensor:
    """M from its definition, written out per family: (B, K, K)."""
    match distribution:
        case DiagonalGaussian():
            sigma = z[:, distribution.actions :].exp()
            return torch.diag_embed(torch.cat((sigma**-2, torch.full_like(sigma, 2.0)), -1))
        case UnitGaussian():
            return torch.ones_like(z).unsqueeze(-1)
        case MultiCategorical():
            joint, m = Joint(z, distribution.sizes), torch.zeros(len(z), z.shape[1], z.shape[1], dtype=z.dtype)
            means = torch.cat([part.softmax(-1) for part in z.split(distribution.sizes, -1)], -1)
            for action, p in zip(joint.combinations(), joint.probs.T, strict=True):
                chosen = [nn.functional.one_hot(a, n) for a, n in zip(action, distribution.sizes, strict=True)]
                score = torch.cat(chosen) - means
                m += p[:, None, None] * score[:, :, None] * score[:, None, :]
            return m
    p = torch.softmax(z, -1)
    return torch.diag_embed(p) - p[:, :, None] * p[:, None, :]


def output_scores(problem: Surrogate, actions: Tensor) -> Tensor:
    """d log p(a; z) / dz at one action per state: (B, K)."""
    z = problem.z.clone().requires_grad_()
    (scores,) = torch.autograd.grad(reference(problem.policy.distribution, z).log_prob(actions).sum(), z)
    return scores


def sampled_output_fisher(problem: Surrogate, samples: int, rng: np.random.Generator) -> Tensor:
    """M with the expectation replaced by a mean over so many actions per state: (B, K, K)."""
    distribution, z = problem.policy.distribution, problem.z
    total = torch.zeros(len(z), distribution.width, distribution.width, dtype=torch.float64)
    for _ in range(samples):
        noise = torch.from_numpy(distribution.noise(rng, len(z))).double()
        scores = output_scores(problem, distribution.sample(z, noise))
        total += scores[:, :, None] * scores[:, None, :]
    return total / samples


def dense_fisher(problem: Surrogate, m: Tensor | None = None) -> Tensor:
    """F = (1/B) sum_s J^T M J, shape (d, d); M of the closed form, or what is given, shape (B, K, K)."""
    jacobian = dense_jacobian(problem)
    if m is None:
        m = dense_output_fisher(problem.z, problem.policy.distribution)
    return torch.einsum("ska,skl,slb->ab", jacobian, m, jacobian) / len(jacobian)


@dataclass(frozen=True)
class LayerTruth:
    """What one layer sees, from a forward pass written out module by module.

    Attributes:
        index: entries of theta that make up the matrix of weights and bias, (n_out, n_in + 1).
        a: inputs at every position, extended by 1, (B, T, n_in + 1).
        jacobian: dz / d output at every position, (B, T, K, n_out).
    """

    index: Tensor
    a: Tensor
    jacobian: Tensor

    def factors(self, m: Tensor) -> tuple[Tensor, Tensor]:
        """A = E_s sum_t a a^T, and G = E_s (1/T) sum_t D^T M D for M of shape (B, K, K)."""
        states, positions = self.a.shape[:2]
        a = torch.einsum("sti,stj->ij", self.a, self.a) / states
        g = torch.einsum("stka,skl,stlb->ab", self.jacobian, m, self.jacobian) / (states * positions)
        return a, g


def layer_truths(problem: Surrogate) -> list[LayerTruth]:
    """The layers in the order of theta; log sigma is one with input 1, no weights, and itself as output."""
    policy, width = problem.policy, problem.policy.distribution.width
    h, seen = problem.batch.observations, []
    for module in policy.network:
        x, h = h, module(h)
        if next(module.parameters(), None) is not None:
            seen.append((module, x.detach(), h))
    truths, start = [], 0
    for module, x, output in seen:
        jacobian = torch.zeros(len(x), width, *output.shape[1:], dtype=torch.float64)
        for k in range(h.shape[1]):
            (jacobian[:, k],) = torch.autograd.grad(h[:, k].sum(), output, retain_graph=True)
        patches = _patches(module, x) if isinstance(module, nn.Conv2d) else x.unsqueeze(1)
        a = torch.cat((patches, torch.ones(*patches.shape[:2], 1, dtype=torch.float64)), -1)
        n_out, n_in = output.shape[1], patches.shape[2]
        weight = torch.arange(start, start + n_out * n_in).view(n_out, n_in)
        bias = torch.arange(start + n_out * n_in, start + n_out * (n_in + 1)).view(n_out, 1)
        by_position = jacobian.reshape(len(x), width, n_out, -1).permute(0, 3, 1, 2)
        truths.append(LayerTruth(torch.cat((weight, bias), 1), a, by_position))
        start += n_out * (n_in + 1)
    if policy.log_std is not None:
        ones = torch.ones(len(h), 1, 1, dtype=torch.float64)
        selection = torch.eye(width, dtype=torch.float64)[:, width // 2 :].expand(len(h), 1, -1, -1)
        truths.append(LayerTruth(torch.arange(start, start + width // 2).view(-1, 1), ones, selection))
    return truths


def kronecker_truths(problem: Surrogate, m: Tensor | None = None) -> list[tuple[LayerTruth, Tensor, Tensor]]:
    """A and G of every layer; M as in `dense_fisher`, but always of the closed form for log sigma."""
    closed_form = dense_output_fisher(problem.z, problem.policy.distribution)
    sampled = closed_form if m is None else m
    truths = layer_truths(problem)
    weighted = [(t, closed_form if _is_constant(t) else sampled) for t in truths]
    return [(t, *t.factors(m)) for t, m in weighted]


def kronecker_dense(factors: list[tuple[LayerTruth, Tensor, Tensor]]) -> Tensor:
    """The matrix with G_ik A_jl between the entries (i, j) and (k, l) of a layer's matrix, 0 between layers."""
    return blocks_dense([(t, torch.kron(g, a)) for t, a, g in factors])


def blocks_dense(blocks: list[tuple[LayerTruth, Tensor]]) -> Tensor:
    """A block-diagonal matrix in the order of theta, its blocks given row by row of each layer's matrix."""
    d = sum(t.index.numel() for t, _ in blocks)
    dense = torch.zeros(d, d, dtype=torch.float64)
    for t, block in blocks:
        dense[t.index.reshape(-1, 1), t.index.reshape(1, -1)] = block
    return dense


def block_diagonal(problem: Surrogate, m: Tensor | None = None) -> Tensor:
    """The blocks of the layers of F alone; M as in `kronecker_truths`."""
    sampled, closed_form = dense_fisher(problem, m), dense_fisher(problem)
    blocks = []
    for t in layer_truths(problem):
        rows = t.index.flatten()
        blocks.append((t, (closed_form if _is_constant(t) else sampled)[rows][:, rows]))
    return blocks_dense(blocks)


def _is_constant(truth: LayerTruth) -> bool:
    return truth.index.shape[1] == 1


def _state_shape(policy: Policy) -> tuple[int, ...]:
    first = policy.network[0]
    return (first.in_channels, SIDE, SIDE) if isinstance(first, nn.Conv2d) else (3,)


def _patches(module: nn.Conv2d, x: Tensor) -> Tensor:
    """What every output pixel of a convolution with square kernels sees, row by row: (B, T, n_in)."""
    kernel, stride, padding = module.kernel_size[0], module.stride[0], int(module.padding[0])
    states, channels, side = x.shape[:3]
    padded = torch.zeros(states, channels, side + 2 * padding, side + 2 * padding, dtype=torch.float64)
    padded[:, :, padding : padding + side, padding : padding + side] = x
    corners = range(0, padded.shape[2] - kernel + 1, stride)
    return torch.stack([padded[:, :, i : i + kernel, j : j + kernel].flatten(1) for i in corners for j in corners], 1)
