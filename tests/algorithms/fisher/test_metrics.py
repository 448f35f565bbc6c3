"""What every Fisher matrix and approximation has to be; a metric is tested by its file and its YAML being there."""

import dataclasses
import math
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from algorithms.fisher.distributions import Categorical, DiagonalGaussian
from algorithms.fisher.metric import FisherConfig, Metric, Model
from algorithms.fisher.parameters import assign, flatten
from algorithms.fisher.solvers import Outcome, relative_residual
from algorithms.parts.algorithm import SOLVERS, load_fisher
from algorithms.parts.directions import Natural
from algorithms.parts.surrogate import Surrogate
from tests.algorithms.problems import (
    DISTRIBUTIONS,
    POLICIES,
    assert_close,
    every_policy,
    make_policy,
    make_problem,
    random_vectors,
)
from tests.settings import CONF, compose

SMALL = {"rank": "12", "iterations": "200", "tolerance": "1e-13"}
"""Overrides, of those settings that a metric has, for networks of some fifty parameters and exact solves."""

YAMLS = {path.stem for path in (CONF / "fisher").glob("*.yaml")}
METRICS = sorted(YAMLS & {path.stem for path in (CONF.parent / "algorithms" / "fisher" / "metrics").glob("*.py")})

Case = tuple[str, tuple[str, ...]]
"""The name of a metric, and overrides of its settings."""

EPS = torch.finfo(torch.float64).eps
CG_TOLERANCE = 1e-12  # of the solve behind Metric.inverse_product
DAMPINGS = (1e-3, 0.1)


def settings_of(name: str) -> set[str]:
    return {field.name for field in dataclasses.fields(load_fisher(name).Config)}


CASES: list[Case] = [(name, ()) for name in METRICS]
CASES += [(name, ("samples=3",)) for name in METRICS if "samples" in settings_of(name)]
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join((case[0], *case[1])))
every_metric = pytest.mark.parametrize("name", METRICS)


@cache
def config_of(case: Case) -> FisherConfig:
    name, overrides = case
    small = [f"{key}={value}" for key, value in SMALL.items() if key in settings_of(name)]
    fisher = [f"fisher.{override}" for override in (*small, *overrides)]
    config: FisherConfig = compose("algorithm=npg", "env=hopper", f"fisher={name}", *fisher).fisher
    return config


def metric_of(case: Case, model: Model, seed: int = 0) -> Metric:
    return load_fisher(case[0]).at(model, config_of(case), np.random.default_rng(seed))


@dataclasses.dataclass(frozen=True)
class Example:
    """A metric on a batch, and the matrix it says it is."""

    problem: Surrogate
    metric: Metric
    dense: Tensor


@cache
def example(case: Case, policy: str) -> Example:
    problem = make_problem(POLICIES[policy]())
    metric = metric_of(case, problem.model)
    return Example(problem, metric, metric.dense())


def test_every_yaml_has_a_metric_with_a_solver_of_its_own_list() -> None:
    assert set(METRICS) == YAMLS != set()
    for name in METRICS:
        assert config_of((name, ())).solver in load_fisher(name).solvers
        assert set(load_fisher(name).solvers) <= set(SOLVERS)


@every_case
@every_policy
def test_products_are_those_of_the_matrix(case: Case, policy: str) -> None:
    e = example(case, policy)
    block = random_vectors(e.problem, 4)
    assert_close(e.metric.product(block), e.dense @ block)
    for v, product in zip(block.unbind(1), e.metric.product(block).unbind(1), strict=True):
        assert_close(e.metric.product(v), product)
        assert float(e.metric.quadratic(v)) == pytest.approx(float(v @ e.dense @ v), rel=1e-10)


@every_case
@every_policy
def test_the_matrix_is_symmetric_and_positive_semi_definite(case: Case, policy: str) -> None:
    e = example(case, policy)
    assert_close(e.dense, e.dense.mT)
    eigenvalues = torch.linalg.eigvalsh(e.dense)
    assert float(eigenvalues[0]) >= -1e-13 * float(eigenvalues[-1])
    assert float(eigenvalues[-1]) > 0


@every_case
@every_policy
def test_diagonal_and_trace_are_those_of_the_matrix(case: Case, policy: str) -> None:
    e = example(case, policy)
    assert_close(e.metric.diagonal(), e.dense.diagonal())
    assert e.metric.trace() == pytest.approx(float(e.dense.trace()), rel=1e-10)


@every_case
@every_policy
def test_what_is_drawn_is_drawn_once(case: Case, policy: str) -> None:
    """Neither another product nor a solve changes the matrix."""
    e = example(case, policy)
    e.metric.inverse_product(random_vectors(e.problem), 0.1)
    assert torch.equal(e.metric.dense(), e.dense)


@every_case
@every_policy
def test_damped_products_are_of_a_positive_definite_matrix_close_to_the_undamped_one(case: Case, policy: str) -> None:
    e = example(case, policy)
    block, scale = random_vectors(e.problem, 3), float(e.dense.diagonal().mean())
    for damping in DAMPINGS:
        damped = e.metric.dense(damping)
        assert_close(e.metric.damped_product(block, damping), damped @ block)
        assert float(torch.linalg.eigvalsh(damped - e.dense)[0]) >= 0.999 * damping
    tiny = e.metric.dense(1e-12 * scale) - e.dense
    assert float(tiny.abs().max()) <= 1e-4 * scale


@every_case
@every_policy
@pytest.mark.parametrize("damping", DAMPINGS)
def test_the_inverse_is_that_of_the_damped_matrix(case: Case, policy: str, damping: float) -> None:
    """Direct inverses up to rounding, those by conjugate gradients up to the tolerance of the solve."""
    e = example(case, policy)
    block = random_vectors(e.problem, 2)
    damped = e.metric.dense(damping)
    kappa = float(torch.linalg.cond(damped))
    is_direct = type(e.metric).inverse_product is not Metric.inverse_product
    allowed = 100 * kappa * EPS if is_direct else 2 * kappa * CG_TOLERANCE
    for b in (block, block[:, 0]):
        solution = e.metric.inverse_product(b, damping)
        expected = torch.linalg.solve(damped, b)
        error = float((solution.x - expected).norm() / expected.norm())
        assert error <= allowed, f"error {error:.1e} at condition number {kappa:.1e}"
        residual = relative_residual(damped @ solution.x, b)
        assert residual <= (allowed if is_direct else 2 * CG_TOLERANCE), f"residual {residual:.1e} at {kappa:.1e}"
        assert solution.outcome is Outcome.CONVERGED
        assert solution.residual == pytest.approx(residual, abs=CG_TOLERANCE + 100 * EPS * kappa)
        assert (solution.iterations == 0) == is_direct


@every_case
@every_policy
def test_every_solver_gives_the_same_direction(case: Case, policy: str) -> None:
    problem, damping = make_problem(POLICIES[policy]()), 0.05
    damped = metric_of(case, problem.model).dense(damping)
    expected = torch.linalg.solve(damped, problem.gradient)
    for solver in load_fisher(case[0]).solvers:
        natural = Natural(config_of(case), solver, damping, len(problem.theta), np.random.default_rng(0))
        direction = natural(problem, problem.gradient)
        assert direction.outcome is Outcome.CONVERGED, solver
        error = float((direction.x - expected).norm() / expected.norm())
        kappa = float(torch.linalg.cond(damped))
        assert error <= 10 * kappa * float(SMALL["tolerance"]), f"{solver}: error {error:.1e}, condition {kappa:.1e}"


@every_metric
def test_a_solver_the_metric_does_not_have_is_refused_by_name(name: str) -> None:
    for solver in set(SOLVERS) - set(load_fisher(name).solvers):
        with pytest.raises(ValueError, match=f"solver={solver}: does not apply to fisher={name}; choose one of"):
            Natural(config_of((name, ())), solver, 0.1, 50, np.random.default_rng(0))


@every_case
@every_policy
def test_single_precision_is_kept(case: Case, policy: str) -> None:
    e = example(case, policy)
    problem = make_problem(POLICIES[policy]().float())
    metric, v = metric_of(case, problem.model), random_vectors(problem).float()
    assert {x.dtype for x in (metric.product(v), metric.diagonal(), metric.dense())} == {torch.float32}
    assert_close(metric.dense().double(), e.dense, relative=1e-4)
    for solver in metric.solvers:
        natural = Natural(config_of(case), solver, 0.1, len(v), np.random.default_rng(0))(problem, problem.gradient)
        expected = torch.linalg.solve(e.metric.dense(0.1), problem.gradient.double())
        assert natural.x.dtype == torch.float32
        assert float((natural.x - expected).norm() / expected.norm()) < 1e-3, solver


def global_generators() -> tuple[list[int], list[int]]:
    numpy_state: Any = np.random.get_state()  # noqa: NPY002
    return torch.random.get_rng_state().tolist(), numpy_state[1].tolist()


@every_case
def test_the_generator_s_seed_decides_the_matrix_if_anything_does(case: Case) -> None:
    problem = make_problem(POLICIES["categorical"]())
    before = global_generators()
    rng = np.random.default_rng(0)
    first = load_fisher(case[0]).at(problem.model, config_of(case), rng).dense()
    draws = rng.bit_generator.state != np.random.default_rng(0).bit_generator.state
    assert torch.equal(metric_of(case, problem.model, seed=0).dense(), first)
    assert torch.equal(metric_of(case, problem.model, seed=1).dense(), first) == (not draws)
    assert draws or not any("samples" in override for override in case[1])
    assert global_generators() == before


@every_case
@every_policy
def test_a_subsample_is_drawn_once_per_update_and_fixed_within_it(case: Case, policy: str) -> None:
    problem = make_problem(POLICIES[policy]())
    metric, seen = load_fisher(case[0]), []

    class Recorded(metric):  # type: ignore[misc, valid-type]
        @classmethod
        def at(cls, model: Model, config: FisherConfig, rng: np.random.Generator) -> Metric:
            seen.append((model, rng.bit_generator.state))
            return metric.at(model, config, rng)

    config = dataclasses.replace(config_of(case), states=7)
    natural = Natural(config, config.solver, 0.1, len(problem.theta), np.random.default_rng(3))
    natural.metric = Recorded
    directions = [natural(problem, problem.gradient) for _ in range(2)]

    assert len(seen) == 2
    for (model, state), direction in zip(seen, directions, strict=True):
        equal = (problem.batch.observations == model.inputs.unsqueeze(1)).flatten(2).all(2)
        rows = equal.nonzero()[:, 1]
        assert len(rows.unique()) == len(model) == 7
        assert torch.equal(problem.batch.actions[rows], model.actions)
        rng = np.random.default_rng(0)
        rng.bit_generator.state = state
        on_these_states = metric.at(problem.model.select(rows), config, rng)
        expected = torch.linalg.solve(on_these_states.dense(0.1), problem.gradient)
        assert_close(direction.x, expected, relative=1e-9)
    assert not torch.equal(seen[0][0].inputs, seen[1][0].inputs)


@every_metric
@pytest.mark.parametrize("dead_input", [False, True])
def test_a_singular_matrix_without_damping_has_a_named_outcome(name: str, dead_input: bool) -> None:
    """Two states leave most matrices singular; an input that is always 0 leaves a 0 on the diagonal of all but a few.

    What is called converged has to be a solution, by the matrix written out.
    """
    for distribution in DISTRIBUTIONS:
        problem = make_problem(make_policy(distribution), n=2, num_envs=1)
        if dead_input:
            problem.batch.observations[:, 0] = 0.0
        dense = metric_of((name, ()), problem.model).dense()
        for solver in load_fisher(name).solvers:
            natural = Natural(config_of((name, ())), solver, 0.0, len(problem.theta), np.random.default_rng(0))
            direction = natural(problem, problem.gradient)
            assert direction.outcome in Outcome
            assert torch.isfinite(direction.x).all()
            if direction.outcome is Outcome.CONVERGED:
                assert relative_residual(dense @ direction.x, problem.gradient) < 1e-6, solver
            if solver != "cg" and (dense.diagonal() == 0).any():
                assert direction.outcome is Outcome.ILL_CONDITIONED, solver


@every_case
@pytest.mark.parametrize("where", ["theta", "inputs"])
def test_nan_is_named_non_finite_by_every_solver(case: Case, where: str) -> None:
    for distribution in DISTRIBUTIONS:
        problem = make_problem(make_policy(distribution))
        if where == "theta":
            problem.theta[3] = math.nan
        else:
            problem.batch.observations[5, 1] = math.nan
        problem.__dict__["gradient"] = random_vectors(problem)
        for solver in load_fisher(case[0]).solvers:
            natural = Natural(config_of(case), solver, 0.1, len(problem.theta), np.random.default_rng(0))
            assert natural(problem, problem.gradient).outcome is Outcome.NON_FINITE, solver


@every_case
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_right_hand_side_that_is_not_finite_is_named(case: Case, value: float) -> None:
    e = example(case, "gaussian")
    b = random_vectors(e.problem)
    b[7] = value
    assert e.metric.inverse_product(b, 0.1).outcome is Outcome.NON_FINITE


@every_case
@every_policy
def test_the_network_is_left_as_it_was(case: Case, policy: str) -> None:
    problem = make_problem(POLICIES[policy]())
    before, theta = flatten(problem.policy), problem.theta.clone()
    metric, v = metric_of(case, problem.model), random_vectors(problem)
    metric.product(v), metric.diagonal(), metric.quadratic(v), metric.inverse_product(v, 0.1)
    assert torch.equal(flatten(problem.policy), before)
    assert torch.equal(problem.theta, theta)
    assert all(p.grad is None for p in problem.policy.parameters())
    dense = metric.dense()
    assign(problem.policy, before + 1)
    assert torch.equal(metric.dense(), dense)
    assert not any(module._forward_hooks for module in problem.policy.modules())


@every_metric
def test_a_layer_it_does_not_know_is_refused_by_name_or_needs_no_knowing(name: str) -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 3)).double()
    policy = make_policy(Categorical(3))
    policy.network = network
    problem = make_problem(policy)
    message = ""
    try:
        metric, v = metric_of((name, ()), problem.model), random_vectors(problem)
        assert_close(metric.product(v), metric.dense() @ v)
    except TypeError as error:
        message = str(error)
    assert message == "" or "layer network.1: LayerNorm" in message


@every_metric
@settings(derandomize=True, deadline=None, max_examples=12)
@given(
    distribution=st.one_of(st.integers(1, 3).map(DiagonalGaussian), st.integers(2, 4).map(Categorical)),
    hidden=st.lists(st.integers(1, 5), max_size=2),
    activation=st.sampled_from(["tanh", "relu", "identity"]),
    states=st.integers(1, 9),
    seed=st.integers(0, 2**16),
)
def test_any_network_on_any_batch_gives_a_metric(
    name: str, distribution: DiagonalGaussian | Categorical, hidden: list[int], activation: str, states: int, seed: int
) -> None:
    policy = make_policy(distribution, tuple(hidden), seed, activation)
    problem = make_problem(policy, n=states, seed=seed + 1, num_envs=1)
    metric, block = metric_of((name, ()), problem.model, seed), random_vectors(problem, 2, seed=seed)
    dense = metric.dense()
    assert_close(metric.product(block), dense @ block)
    assert_close(dense, dense.mT)
    assert_close(metric.diagonal(), dense.diagonal())
    assert metric.trace() == pytest.approx(float(dense.trace()), rel=1e-10, abs=1e-300)
    assert float(torch.linalg.eigvalsh(dense)[0]) >= -1e-12 * float(dense.abs().max())
    solution = metric.inverse_product(block, 0.1)
    assert solution.outcome is Outcome.CONVERGED
    assert relative_residual(metric.dense(0.1) @ solution.x, block) < 1e-10
