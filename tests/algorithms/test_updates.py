"""Whole updates: step rules at their exact lengths, named outcomes, parameters restored bit for bit."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from algorithms.fisher.metric import FisherConfig
from algorithms.fisher.parameters import flatten
from algorithms.parts.algorithm import Algorithm, Outcome, Pair, load_fisher
from algorithms.parts.plugins import load
from algorithms.parts.policy import Policy
from algorithms.parts.policy_gradient import PolicyGradient
from algorithms.parts.step_rules import CurvatureError, normalised, to_divergence
from algorithms.parts.surrogate import Surrogate
from settings import load_algorithm, load_critic
from tests.algorithms.problems import DISTRIBUTIONS, dense_fisher, make_policy, make_problem, reference
from tests.settings import compose

GAUSSIAN = DISTRIBUTIONS[0]


def make_algorithm(policy: Policy, *overrides: str) -> PolicyGradient:
    config = compose(*overrides, "env=hopper", "rollout.num_envs=4", "algorithm.batch_size=24")
    algorithm = config.algorithm_class(config.algorithm, config.pair, policy, np.random.default_rng(0))
    assert isinstance(algorithm, PolicyGradient)
    return algorithm


def test_the_normalised_step_has_the_length_it_promises() -> None:
    problem = make_problem(make_policy(GAUSSIAN))
    step = normalised(problem, problem.gradient, delta=0.02, damping=0.3).change
    assert step is not None
    length = float(problem.fisher.quadratic(step) + 0.3 * step.dot(step))
    assert 0.5 * length == pytest.approx(0.02, rel=1e-12)


def test_the_divergence_step_reaches_delta_exactly() -> None:
    problem = make_problem(make_policy(GAUSSIAN))
    step = to_divergence(problem, problem.gradient, delta=0.05, damping=0.1).change
    assert step is not None
    assert 0.999 * 0.05 <= problem.evaluate(problem.theta + step)[1] <= 0.05


def test_a_direction_without_length_is_refused_by_name() -> None:
    problem = make_problem(make_policy(GAUSSIAN))
    with pytest.raises(CurvatureError) as zero:
        normalised(problem, torch.zeros_like(problem.theta), delta=0.02, damping=0.1)
    assert zero.value.outcome == "negative_curvature"
    with pytest.raises(CurvatureError) as nan:
        normalised(problem, problem.theta * math.nan, delta=0.02, damping=0.1)
    assert nan.value.outcome == "non_finite"


@pytest.mark.parametrize("direction", ["gradient", "sgd", "adam", "rmsprop", "natural"])
@pytest.mark.parametrize("step_rule", ["lr", "normalised", "kl", "line_search"])
def test_any_direction_goes_with_any_step_rule(direction: str, step_rule: str) -> None:
    policy = make_policy(GAUSSIAN)
    algorithm = make_algorithm(policy, "algorithm=npg", f"direction={direction}", f"step_rule={step_rule}")
    problem = make_problem(policy)
    update = algorithm.update(problem, 1.0)
    assert update.outcome is Outcome.STEPPED
    gain, kl = problem.evaluate(flatten(policy))
    assert gain > 0
    if step_rule == "kl":
        assert kl == pytest.approx(0.02, rel=1e-3)
    if step_rule == "line_search":
        assert kl <= 0.02
    assert (update.damping is not None) == (direction == "natural")


def test_the_line_search_can_start_at_the_exact_divergence() -> None:
    policy = make_policy(GAUSSIAN)
    algorithm = make_algorithm(policy, "algorithm=trpo", "algorithm.line_search_start=kl")
    problem = make_problem(policy)
    assert algorithm.update(problem, 1.0).metrics["backtracks"] == 0
    assert problem.evaluate(flatten(policy))[1] == pytest.approx(0.02, rel=1e-3)


@pytest.mark.parametrize("start", ["normalised", "kl"])
def test_a_failed_line_search_restores_the_parameters_bit_for_bit(start: str) -> None:
    policy = make_policy(GAUSSIAN).float()
    before = flatten(policy)
    problem = make_problem(policy)
    # The surrogate can only fall: every trial is shown a gain of the opposite sign.
    evaluate = problem.evaluate

    def falling(theta: torch.Tensor, entropy_coefficient: float = 0.0) -> tuple[float, float]:
        gain, kl = evaluate(theta, entropy_coefficient)
        return -abs(gain), kl

    problem.evaluate = falling  # type: ignore[method-assign]
    algorithm = make_algorithm(policy, "algorithm=trpo", f"algorithm.line_search_start={start}")
    update = algorithm.update(problem, 1.0)
    assert update.outcome is Outcome.REJECTED
    assert (update.metrics["backtracks"], update.metrics["step_size"]) == (9, 0.0)
    assert torch.equal(flatten(policy), before)


@pytest.mark.parametrize("name", ["adam_pg", "npg", "trpo"])
@pytest.mark.parametrize(("advantage", "outcome"), [(0.0, Outcome.ZERO_GRADIENT), (math.nan, Outcome.NON_FINITE)])
def test_degenerate_gradients_are_named_and_leave_everything_as_it_was(
    name: str, advantage: float, outcome: Outcome
) -> None:
    policy = make_policy(GAUSSIAN)
    algorithm = make_algorithm(policy, f"algorithm={name}")
    algorithm.update(make_problem(policy), 1.0)
    before, state = flatten(policy), {k: v.clone() for k, v in algorithm.direction.state.items()}
    problem = make_problem(policy)
    problem.batch.advantages.fill_(advantage)
    assert algorithm.update(problem, 1.0).outcome is outcome
    assert torch.equal(flatten(policy), before)
    assert all(torch.equal(algorithm.direction.state[k], v) for k, v in state.items())


@pytest.mark.parametrize(("value", "outcome"), [(-1.0, Outcome.NEGATIVE_CURVATURE), (math.nan, Outcome.NON_FINITE)])
def test_a_fisher_matrix_gone_wrong_is_named_and_leaves_the_parameters(value: float, outcome: Outcome) -> None:
    policy = make_policy(GAUSSIAN)
    problem = make_problem(policy)
    problem.fisher.product = lambda v: value * v  # type: ignore[method-assign]
    before = flatten(policy)
    assert make_algorithm(policy, "algorithm=trpo").update(problem, 1.0).outcome is outcome
    assert torch.equal(flatten(policy), before)


def test_the_learning_rate_schedule_scales_the_step() -> None:
    policies = [make_policy(GAUSSIAN) for _ in range(2)]
    steps = []
    for policy, scale in zip(policies, (1.0, 0.25), strict=True):
        before = flatten(policy)
        make_algorithm(policy, "algorithm=adam_pg").update(make_problem(policy), scale)
        steps.append(flatten(policy) - before)
    torch.testing.assert_close(0.25 * steps[0], steps[1])


def test_ppo_with_one_pass_over_one_minibatch_is_one_adam_step_on_the_policy_gradient() -> None:
    """At ratio 1 nothing is clipped, so the gradient is g; Adam's first step has length alpha in every coordinate."""
    policy = make_policy(GAUSSIAN)
    config = compose(
        "algorithm=ppo", "env=hopper", "rollout.num_envs=4", "algorithm.batch_size=24", "algorithm.minibatch_size=24",
        "algorithm.epochs=1", "algorithm.max_gradient_norm=1e9", "algorithm.entropy_coefficient=0",
    )  # fmt: skip
    problem, before = make_problem(policy), flatten(policy)
    algorithm = config.algorithm_class(config.algorithm, config.pair, policy, np.random.default_rng(0))
    update = algorithm.update(problem, 1.0)
    g = problem.gradient
    expected = config.algorithm.learning_rate * g / (g.abs() + 1e-5)
    torch.testing.assert_close(flatten(policy) - before, expected, rtol=1e-6, atol=1e-12)
    assert update.metrics["clip_fraction"] == 0.0


def test_the_entropy_bonus_of_ppo_keeps_the_policy_wider() -> None:
    entropies = []
    for coefficient in (0.0, 1.0):
        policy = make_policy(GAUSSIAN)
        config = compose(
            "algorithm=ppo", "env=hopper", "rollout.num_envs=4", "algorithm.batch_size=128",
            f"algorithm.entropy_coefficient={coefficient}",
        )  # fmt: skip
        algorithm = config.algorithm_class(config.algorithm, config.pair, policy, np.random.default_rng(0))
        problem = make_problem(policy, n=128)
        algorithm.update(problem, 1.0)
        with torch.no_grad():
            entropies.append(float(GAUSSIAN.entropy(policy(problem.batch.observations)).mean()))
    assert entropies[1] > entropies[0]


@pytest.mark.parametrize(("advantage", "outcome"), [(0.0, Outcome.ZERO_GRADIENT), (math.nan, Outcome.NON_FINITE)])
def test_ppo_names_degenerate_batches(advantage: float, outcome: Outcome) -> None:
    policy = make_policy(GAUSSIAN)
    config = compose("algorithm=ppo", "env=hopper", "rollout.num_envs=4", "algorithm.batch_size=128")
    algorithm = config.algorithm_class(config.algorithm, config.pair, policy, np.random.default_rng(0))
    problem, before = make_problem(policy, n=128), flatten(policy)
    problem.batch.advantages.fill_(advantage)
    assert algorithm.update(problem, 1.0).outcome is outcome
    assert torch.equal(flatten(policy), before)


def test_ppo_undoes_an_update_whose_gradient_blows_up_midway() -> None:
    policy = make_policy(GAUSSIAN)
    config = compose("algorithm=ppo", "env=hopper", "rollout.num_envs=4", "algorithm.batch_size=128")
    algorithm = config.algorithm_class(config.algorithm, config.pair, policy, np.random.default_rng(0))
    problem, before = make_problem(policy, n=128), flatten(policy)
    in_the_second_minibatch = int(np.random.default_rng(0).permutation(128)[-1])
    problem.batch.observations[in_the_second_minibatch] = math.nan
    assert algorithm.update(problem, 1.0).outcome is Outcome.NON_FINITE
    assert torch.equal(flatten(policy), before)


def entropy_gradient(policy: Policy, problem: Surrogate) -> torch.Tensor:
    """Of the mean entropy, by autograd."""
    p = reference(policy.distribution, policy(problem.batch.observations))
    return torch.cat([h.flatten() for h in torch.autograd.grad(p.entropy().mean(), list(policy.parameters()))])


def test_adam_pg_follows_the_gradient_with_its_bonus_scaled_down_to_the_largest_norm() -> None:
    policy = make_policy(GAUSSIAN)
    problem = make_problem(policy)
    settings = ("algorithm.optimiser=sgd", "algorithm.learning_rate=0.5", "algorithm.entropy_coefficient=0.3")
    g = problem.gradient + 0.3 * entropy_gradient(policy, problem)
    make_algorithm(policy, "algorithm=adam_pg", *settings, "algorithm.max_gradient_norm=0.01").update(problem, 1.0)
    torch.testing.assert_close(flatten(policy) - problem.theta, 0.5 * 0.01 * g / g.norm(), rtol=1e-9, atol=1e-14)


def test_npg_steps_along_the_natural_gradient_of_return_and_bonus_whose_length_clipping_does_not_change() -> None:
    policy = make_policy(GAUSSIAN)
    problem = make_problem(policy)
    settings = ("algorithm=npg", "algorithm.entropy_coefficient=0.3", "algorithm.max_gradient_norm=0.01")
    metric = dense_fisher(problem) + 0.1 * torch.eye(len(problem.theta), dtype=torch.float64)
    x = torch.linalg.solve(metric, problem.gradient + 0.3 * entropy_gradient(policy, problem))
    make_algorithm(policy, *settings, "fisher.iterations=1000", "fisher.tolerance=1e-13").update(problem, 1.0)
    expected = math.sqrt(2 * 0.02 / float(x @ metric @ x)) * x
    torch.testing.assert_close(flatten(policy) - problem.theta, expected, rtol=1e-8, atol=1e-12)


def test_trpo_searches_for_a_gain_of_return_and_bonus() -> None:
    """Without advantages the surrogate return cannot gain; the bonus can."""
    policy = make_policy(GAUSSIAN)
    problem = make_problem(policy)
    problem.batch.advantages.zero_()
    entropy = GAUSSIAN.entropy(problem.z).mean()
    algorithm = make_algorithm(policy, "algorithm=trpo", "algorithm.entropy_coefficient=0.3")
    update = algorithm.update(problem, 1.0)
    assert update.outcome is Outcome.STEPPED
    gain = 0.3 * float(GAUSSIAN.entropy(policy.z(problem.batch.observations)).mean() - entropy)
    assert update.metrics["surrogate_gain"] == pytest.approx(gain, rel=1e-12)
    assert gain > 0


@pytest.mark.parametrize("name", ["adam_pg", "npg", "trpo", "acktr", "ppo"])
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("algorithm.entropy_coefficient=-1", r"^algorithm\.entropy_coefficient=-1\.0: must not be negative$"),
        ("algorithm.max_gradient_norm=0", r"^algorithm\.max_gradient_norm=0\.0: must be above 0, or null for none$"),
    ],
)
def test_bonuses_and_norms_out_of_range_are_refused_by_name(name: str, override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compose(f"algorithm={name}", "env=hopper", override)


def test_ppo_without_a_largest_norm_is_ppo_with_one_that_is_never_reached() -> None:
    ends = []
    for norm in ("null", "1e9"):
        policy = make_policy(GAUSSIAN)
        config = compose(
            "algorithm=ppo", "env=hopper", "rollout.num_envs=4", "algorithm.batch_size=128",
            f"algorithm.max_gradient_norm={norm}",
        )  # fmt: skip
        algorithm = config.algorithm_class(config.algorithm, config.pair, policy, np.random.default_rng(0))
        algorithm.update(make_problem(policy, n=128), 1.0)
        ends.append(flatten(policy))
    assert torch.equal(*ends)


def test_unknown_names_and_half_pairs_are_refused() -> None:
    fisher = FisherConfig("exact", "cg", iterations=10, tolerance=1e-10)
    for pair in [("east", "lr"), ("natural", "giant")]:
        with pytest.raises(ValueError, match="choose one of"):
            Pair(*pair, fisher, "cg")
    with pytest.raises(ValueError, match="solver=magic"):
        Pair("natural", "lr", fisher, "magic")


@pytest.mark.parametrize(
    ("load", "setting", "file"),
    [
        (load_algorithm, "algorithm", "algorithms/{}.py"),
        (load_critic, "critic", "algorithms/critics/{}.py"),
        (load_fisher, "fisher", "algorithms/fisher/metrics/{}.py"),
    ],
)
def test_a_yaml_without_its_file_is_refused_by_name(load: Any, setting: str, file: str) -> None:
    with pytest.raises(ValueError, match=f"{setting}=nothing: there is no {file.format('nothing')}"):
        load("nothing")


def test_a_file_without_what_it_should_define_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"algorithms/parts/batch\.py must define one Algorithm, it defines 0"):
        load("algorithm", "batch", Algorithm, "algorithms.parts.batch")


def test_a_solver_that_does_not_fit_the_metric_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="solver=woodbury: does not apply to fisher=exact; choose one of cg, cholesky"):
        make_algorithm(make_policy(GAUSSIAN), "algorithm=npg", "solver=woodbury")


def test_a_network_too_large_for_cholesky_is_refused_before_it_is_written_out() -> None:
    policy = make_policy(GAUSSIAN, hidden=(150, 150))
    with pytest.raises(ValueError, match="solver=cholesky: 23,554 parameters are above its limit of 20,000"):
        make_algorithm(policy, "algorithm=npg", "solver=cholesky")


FISHERS = ["exact", "mc", "empirical", "diagonal", "kfac", "ekfac", "lowrank"]


@pytest.mark.parametrize("fisher", FISHERS)
def test_npg_steps_up_with_any_fisher_and_the_length_of_the_exact_one(fisher: str) -> None:
    """Direction and length are not confounded: the step's length is measured in the exact metric."""
    policy = make_policy(GAUSSIAN)
    problem = make_problem(policy, n=48)
    update = make_algorithm(policy, "algorithm=npg", f"fisher={fisher}").update(problem, 1.0)
    assert update.outcome is Outcome.STEPPED
    step = flatten(policy) - problem.theta
    assert float(step @ problem.gradient) > 0
    length = float(problem.fisher.quadratic(step) + 0.1 * step.dot(step))
    assert 0.5 * length == pytest.approx(0.02, rel=1e-10)


@pytest.mark.parametrize("fisher", ["diagonal", "kfac", "ekfac", "lowrank", "exact solver=cholesky"])
def test_a_singular_fisher_matrix_without_damping_is_named_and_moves_nothing(fisher: str) -> None:
    """One state that the first layer sees as zeros: most of F is zero."""
    policy = make_policy(GAUSSIAN)
    problem = make_problem(policy, n=1, num_envs=1)
    problem.batch.advantages.fill_(1.0)
    problem.batch.observations.zero_()
    settings = ("algorithm=npg", "algorithm.damping=0", *f"fisher={fisher}".split())
    update = make_algorithm(policy, *settings).update(problem, 1.0)
    assert update.outcome is Outcome.ILL_CONDITIONED
    assert torch.equal(flatten(policy), problem.theta)


@pytest.mark.parametrize("fisher", FISHERS)
def test_nan_among_the_observations_is_named_and_moves_nothing(fisher: str) -> None:
    policy = make_policy(GAUSSIAN)
    problem = make_problem(policy)
    gradient = problem.gradient
    problem.batch.observations[0] = math.nan
    problem.__dict__["gradient"] = gradient
    update = make_algorithm(policy, "algorithm=npg", f"fisher={fisher}").update(problem, 1.0)
    assert update.outcome is Outcome.NON_FINITE
    assert torch.equal(flatten(policy), problem.theta)


def test_every_setting_of_a_pair_has_a_value_in_the_yaml() -> None:
    for name in ("adam_pg", "npg", "trpo"):
        config = compose(f"algorithm={name}", "env=hopper")
        assert not OmegaConf.missing_keys(OmegaConf.structured(config.algorithm))
