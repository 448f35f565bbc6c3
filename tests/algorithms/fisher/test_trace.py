"""The per-state trace against per-state matrices written out."""

import numpy as np
import pytest
import torch

from algorithms.fisher.layers import CHUNK
from algorithms.fisher.trace import fisher_trace
from tests.algorithms.problems import (
    POLICIES,
    assert_close,
    dense_fisher,
    dense_jacobian,
    dense_output_fisher,
    every_policy,
    make_problem,
    sampled_output_fisher,
)


@every_policy
@pytest.mark.parametrize("states", [24, CHUNK + 3])
def test_every_state_s_trace_is_that_of_its_own_matrix(policy: str, states: int) -> None:
    """Images above all: the sum over positions comes before the norm; and above the number held at the same time."""
    problem = make_problem(POLICIES[policy](), n=states, num_envs=1)
    jacobian = dense_jacobian(problem)
    m = dense_output_fisher(problem.z, problem.policy.distribution)
    assert_close(fisher_trace(problem.model), torch.einsum("ska,skl,sla->s", jacobian, m, jacobian))
    assert float(fisher_trace(problem.model).mean()) == pytest.approx(float(dense_fisher(problem).trace()), rel=1e-10)


@every_policy
@pytest.mark.parametrize("samples", [1, 3])
def test_a_sampled_trace_is_that_at_the_actions_drawn_but_for_log_sigma(policy: str, samples: int) -> None:
    problem = make_problem(POLICIES[policy]())
    jacobian = dense_jacobian(problem)
    m = sampled_output_fisher(problem, samples, np.random.default_rng(1))
    expected = torch.einsum("ska,skl,sla->s", jacobian, m, jacobian)
    if problem.policy.log_std is not None:
        expected += 2 * 2 - m.diagonal(dim1=1, dim2=2)[:, 2:].sum(1)
    assert_close(fisher_trace(problem.model, samples, np.random.default_rng(1)), expected)


@every_policy
def test_single_precision_is_kept(policy: str) -> None:
    problem = make_problem(POLICIES[policy]().float())
    traces = fisher_trace(problem.model)
    assert traces.dtype == torch.float32
    assert_close(traces.double(), fisher_trace(make_problem(POLICIES[policy]()).model), relative=1e-5)
