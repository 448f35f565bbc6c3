"""Families against their definitions: torch.distributions, autograd and exact expectations over actions."""

import numpy as np
import pytest
import torch
from torch import Tensor

from algorithms.fisher.distributions import Categorical, DiagonalGaussian, Distribution, MultiCategorical, UnitGaussian
from tests.algorithms.problems import DISTRIBUTIONS, both, dense_output_fisher, reference

FAMILIES = [*DISTRIBUTIONS, UnitGaussian(), MultiCategorical((3, 1, 2))]
every_family = pytest.mark.parametrize("distribution", FAMILIES, ids=lambda d: type(d).__name__)


def random_z(distribution: Distribution, n: int = 7, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((n, distribution.width)))


@every_family
def test_density_entropy_and_divergence_equal_the_reference(distribution: Distribution) -> None:
    z, other = random_z(distribution), random_z(distribution, seed=1)
    p, q = reference(distribution, z), reference(distribution, other)
    actions = q.sample()
    torch.testing.assert_close(distribution.log_prob(z, actions), p.log_prob(actions), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(distribution.entropy(z), p.entropy(), rtol=1e-12, atol=1e-12)
    expected = torch.distributions.kl_divergence(p, q)
    torch.testing.assert_close(distribution.kl(z, other), expected, rtol=1e-10, atol=1e-12)


@every_family
@pytest.mark.parametrize("size", [1e-3, 1e-6])
def test_divergence_of_close_parameters_keeps_its_digits(distribution: Distribution, size: float) -> None:
    """For z' = z + size u: KL = size^2 u^T M u / 2 + O(size^3), far below what a difference of logs resolves."""
    z, u = random_z(distribution), random_z(distribution, seed=2)
    m = dense_output_fisher(z, distribution)
    expected = 0.5 * size**2 * torch.einsum("sk,skl,sl->s", u, m, u)
    torch.testing.assert_close(distribution.kl(z, z + size * u), expected, rtol=20 * size, atol=0)


@both
def test_divergence_is_float64_old_to_new_and_zero_on_the_diagonal(distribution: Distribution) -> None:
    z, other = random_z(distribution).float(), random_z(distribution, seed=1).float()
    assert distribution.kl(z, other).dtype == torch.float64
    assert (distribution.kl(z, z) == 0).all()
    assert not torch.allclose(distribution.kl(z, other), distribution.kl(other, z))


def test_fisher_matrix_of_the_categorical_is_the_expected_score_outer_product() -> None:
    distribution = Categorical(3)
    z = random_z(distribution).requires_grad_()
    p = torch.softmax(z.detach(), -1)
    expected = torch.zeros(len(z), 3, 3, dtype=torch.float64)
    for action in range(3):
        (score,) = torch.autograd.grad(distribution.log_prob(z, torch.full((len(z),), action)).sum(), z)
        expected += p[:, action, None, None] * score[:, :, None] * score[:, None, :]
    torch.testing.assert_close(dense_output_fisher(z.detach(), distribution), expected, rtol=1e-12, atol=1e-14)


def test_fisher_matrix_of_the_gaussian_is_the_expected_score_outer_product() -> None:
    """Gauss-Hermite quadrature is exact here: the integrand is a polynomial of degree 4 times the density."""
    distribution = DiagonalGaussian(1)
    z = random_z(distribution, n=5).requires_grad_()
    nodes, weights = np.polynomial.hermite_e.hermegauss(8)
    expected = torch.zeros(5, 2, 2, dtype=torch.float64)
    for node, weight in zip(nodes, weights / weights.sum(), strict=True):
        mean, log_std = z.detach().chunk(2, -1)
        (score,) = torch.autograd.grad(distribution.log_prob(z, mean + log_std.exp() * node).sum(), z)
        expected += weight * score[:, :, None] * score[:, None, :]
    torch.testing.assert_close(dense_output_fisher(z.detach(), distribution), expected, rtol=1e-10, atol=1e-12)


@every_family
def test_fisher_products_and_factors_equal_the_matrix(distribution: Distribution) -> None:
    z, v = random_z(distribution), random_z(distribution, seed=3)
    m = dense_output_fisher(z, distribution)
    expected = torch.einsum("skl,sl->sk", m, v)
    torch.testing.assert_close(distribution.fisher_product(z, v), expected, rtol=1e-12, atol=1e-14)
    factors = sum(factor[:, :, None] * factor[:, None, :] for factor in distribution.fisher_factors(z))
    assert isinstance(factors, Tensor)
    torch.testing.assert_close(factors, m, rtol=1e-12, atol=1e-14)


@every_family
def test_scores_are_gradients_of_the_log_density(distribution: Distribution) -> None:
    z = random_z(distribution).requires_grad_()
    actions = reference(distribution, random_z(distribution, seed=1)).sample()
    (expected,) = torch.autograd.grad(reference(distribution, z).log_prob(actions).sum(), z)
    torch.testing.assert_close(distribution.score(z.detach(), actions), expected, rtol=1e-12, atol=1e-14)


@every_family
def test_entropy_gradients_are_those_of_autograd(distribution: Distribution) -> None:
    z = random_z(distribution).requires_grad_()
    entropy = reference(distribution, z).entropy().sum()
    expected = torch.zeros_like(z)
    if entropy.requires_grad:  # not so where the variance is fixed
        (expected,) = torch.autograd.grad(entropy, z)
    torch.testing.assert_close(distribution.entropy_gradient(z.detach()), expected, rtol=1e-12, atol=1e-14)


def test_gaussian_samples_are_mean_plus_sigma_noise() -> None:
    distribution = DiagonalGaussian(2)
    z = random_z(distribution)
    noise = torch.from_numpy(distribution.noise(np.random.default_rng(0), len(z)))
    expected = z[:, :2] + z[:, 2:].exp() * noise
    torch.testing.assert_close(distribution.sample(z, noise), expected, check_dtype=False)
    torch.testing.assert_close(distribution.mode(z), z[:, :2])


def test_samples_of_the_unit_gaussian_are_mean_plus_noise() -> None:
    z = random_z(UnitGaussian())
    noise = torch.from_numpy(UnitGaussian().noise(np.random.default_rng(0), len(z)))
    torch.testing.assert_close(UnitGaussian().sample(z, noise), z + noise, check_dtype=False)
    assert torch.equal(UnitGaussian().mode(z), z)


def test_categorical_samples_have_the_right_frequencies() -> None:
    distribution = Categorical(4)
    z = torch.tensor([[0.0, 1.0, -1.0, 2.0]], dtype=torch.float64).expand(40_000, -1)
    noise = torch.from_numpy(distribution.noise(np.random.default_rng(0), len(z)))
    frequencies = torch.bincount(distribution.sample(z, noise), minlength=4) / len(z)
    torch.testing.assert_close(frequencies.double(), torch.softmax(z[0], -1), rtol=0, atol=0.01)
    assert (distribution.mode(z) == 3).all()


def test_categorical_samples_stay_in_range_at_both_ends_of_the_noise() -> None:
    z = torch.tensor([[3.0, -40.0, 3.0], [3.0, -40.0, 3.0]])
    assert Categorical(3).sample(z, torch.tensor([0.0, 1 - 2**-24])).tolist() == [0, 2]


def test_of_several_choices_each_has_its_own_frequencies() -> None:
    distribution = MultiCategorical((3, 2))
    z = torch.tensor([[0.0, 1.0, -1.0, 2.0, 0.5]], dtype=torch.float64).expand(40_000, -1)
    noise = torch.from_numpy(distribution.noise(np.random.default_rng(0), len(z)))
    actions = distribution.sample(z, noise)
    assert actions.shape == (40_000, 2)
    joint = torch.bincount(actions[:, 0] * 2 + actions[:, 1], minlength=6).view(3, 2) / len(z)
    expected = torch.outer(z[0, :3].softmax(-1), z[0, 3:].softmax(-1))
    torch.testing.assert_close(joint.double(), expected, rtol=0, atol=0.01)
    assert (distribution.mode(z) == torch.tensor([1, 0])).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_of_several_choices_is_the_categorical_to_the_bit(dtype: torch.dtype) -> None:
    one, several = Categorical(4), MultiCategorical((4,))
    z, other, v = (random_z(one, seed=seed).to(dtype) for seed in range(3))
    noise, same = (d.noise(np.random.default_rng(0), len(z)) for d in (one, several))
    np.testing.assert_array_equal(noise[:, None], same)
    actions = one.sample(z, torch.from_numpy(noise))
    assert torch.equal(several.sample(z, torch.from_numpy(same)), actions[:, None])
    assert torch.equal(several.mode(z), one.mode(z)[:, None])
    assert torch.equal(several.log_prob(z, actions[:, None]), one.log_prob(z, actions))
    assert torch.equal(several.score(z, actions[:, None]), one.score(z, actions))
    assert torch.equal(several.entropy(z), one.entropy(z))
    assert torch.equal(several.entropy_gradient(z), one.entropy_gradient(z))
    assert torch.equal(several.kl(z, other), one.kl(z, other))
    assert torch.equal(several.fisher_product(z, v), one.fisher_product(z, v))
    for mine, theirs in zip(several.fisher_factors(z), one.fisher_factors(z), strict=True):
        assert torch.equal(mine, theirs)
