"""The two diagonals of the Fisher matrix: in the coordinates of theta, and in the eigenbasis of K-FAC."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from algorithms.fisher.distributions import Distribution
from algorithms.fisher.metric import SampledConfig
from algorithms.fisher.metrics.diagonal import DiagonalFisher
from algorithms.fisher.metrics.ekfac import EKFAC, eigenvectors
from algorithms.fisher.metrics.kfac import KFAC
from algorithms.parts.surrogate import Surrogate
from tests.algorithms.problems import (
    DISTRIBUTIONS,
    POLICIES,
    assert_close,
    block_diagonal,
    blocks_dense,
    every_policy,
    kronecker_truths,
    make_policy,
    make_problem,
    sampled_output_fisher,
)

GAUSSIAN, CATEGORICAL = DISTRIBUTIONS
closed_form_or_sampled = pytest.mark.parametrize("samples", [None, 3])


def config(samples: int | None) -> SampledConfig:
    return SampledConfig("ekfac", "factored", iterations=1, tolerance=0.0, samples=samples)


def output_fisher(problem: Surrogate, samples: int | None, seed: int) -> Tensor | None:
    return None if samples is None else sampled_output_fisher(problem, samples, np.random.default_rng(seed))


@every_policy
@closed_form_or_sampled
def test_the_diagonal_is_that_of_the_fisher_matrix(policy: str, samples: int | None) -> None:
    problem = make_problem(POLICIES[policy]())
    f = DiagonalFisher.at(problem.model, config(samples), np.random.default_rng(2))
    expected = block_diagonal(problem, output_fisher(problem, samples, 2)).diagonal()
    assert_close(f.entries, expected)
    assert_close(f.dense(), expected.diag())


@every_policy
@closed_form_or_sampled
def test_ekfac_is_the_diagonal_of_the_blocks_in_the_eigenbasis_of_kfac(policy: str, samples: int | None) -> None:
    """Q diag(Q^T F Q) Q^T with Q = Q_G x Q_A of the factors written out, all at the same actions."""
    problem = make_problem(POLICIES[policy]())
    f = EKFAC.at(problem.model, config(samples), np.random.default_rng(2))
    m = output_fisher(problem, samples, 2)
    blocks, basis = block_diagonal(problem, m), []
    for truth, a, g in kronecker_truths(problem, m):
        basis.append((truth, torch.kron(torch.linalg.eigh(g)[1], torch.linalg.eigh(a)[1])))
    q = blocks_dense(basis)
    eigenvalues = (q.T @ blocks @ q).diagonal()
    assert_close(f.dense(), q @ eigenvalues.diag() @ q.T, relative=1e-8)  # eigenvectors amplify rounding by the gaps
    own = blocks_dense([(t, torch.kron(x.g, x.a)) for (t, _), x in zip(basis, f.factors, strict=True)])
    assert_close(own.T @ own, torch.eye(len(own), dtype=torch.float64), relative=1e-12)
    assert_close(f.eigenvalues, (own.T @ blocks @ own).diagonal())
    assert f.trace() == pytest.approx(float(blocks.trace()), rel=1e-10)


@every_policy
def test_ekfac_is_closer_to_the_block_diagonal_than_kfac(policy: str) -> None:
    """By more than 1 % of the block diagonal's norm under tanh."""
    problem = make_problem(POLICIES[policy]())
    blocks, rng = block_diagonal(problem), np.random.default_rng(0)
    ekfac, kfac = (
        float((metric.at(problem.model, config(None), rng).dense() - blocks).norm() / blocks.norm())
        for metric in (EKFAC, KFAC)
    )
    assert ekfac < kfac - 0.01


@settings(derandomize=True, deadline=None, max_examples=20)
@given(
    distribution=st.sampled_from(DISTRIBUTIONS),
    activation=st.sampled_from(["tanh", "relu", "identity"]),
    states=st.integers(1, 12),
    seed=st.integers(0, 2**16),
)
def test_ekfac_is_never_further_from_the_block_diagonal_than_kfac(
    distribution: Distribution, activation: str, states: int, seed: int
) -> None:
    problem = make_problem(make_policy(distribution, (4,), seed, activation), n=states, seed=seed, num_envs=1)
    blocks, rng = block_diagonal(problem), np.random.default_rng(0)
    ekfac, kfac = (float((f.at(problem.model, config(None), rng).dense() - blocks).norm()) for f in (EKFAC, KFAC))
    assert ekfac <= kfac + 1e-12 * float(blocks.norm())


def test_ekfac_is_kfac_where_that_is_exact() -> None:
    problem = make_problem(make_policy(GAUSSIAN, activation="identity"))
    f = EKFAC.at(problem.model, config(None), np.random.default_rng(0))
    assert_close(f.dense(), block_diagonal(problem))


def test_ekfac_draws_its_actions_once() -> None:
    """Factors and eigenvalues at the same actions: the generator ends where one draw of them leaves it."""
    problem = make_problem(make_policy(CATEGORICAL))
    once, twice = np.random.default_rng(0), np.random.default_rng(0)
    EKFAC.at(problem.model, config(2), once)
    KFAC.at(problem.model, config(2), twice)
    assert once.bit_generator.state == twice.bit_generator.state


def test_eigenvectors_of_a_factor_that_is_not_finite_are_nan() -> None:
    factor = torch.eye(3)
    factor[0, 1] = math.inf
    assert eigenvectors(factor).isnan().all()
    assert eigenvectors(torch.eye(3)).dtype == torch.float32


def test_a_decomposition_that_does_not_converge_is_tried_again_with_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Tensor] = []
    eigh = torch.linalg.eigh

    def stubborn(a: Tensor) -> tuple[Tensor, Tensor]:
        tried.append(a)
        if len(tried) <= failures:
            raise RuntimeError("the algorithm failed to converge")
        values, vectors = eigh(a)
        return values, vectors

    monkeypatch.setattr(torch.linalg, "eigh", stubborn)
    factor = torch.diag(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
    failures = 2
    assert torch.equal(eigenvectors(factor).abs(), torch.eye(3, dtype=torch.float64))
    assert [float(a[0, 0]) - 1 for a in tried] == pytest.approx([0, 2e-10, 2e-8], rel=1e-6)
    tried.clear()
    failures = 100
    assert eigenvectors(factor).isnan().all()
    assert len(tried) == 4
