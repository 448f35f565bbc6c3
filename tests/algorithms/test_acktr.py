"""ACKTR's step against dense matrices, and what happens to it when factors go wrong."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from algorithms.acktr import ACKTR
from algorithms.fisher.distributions import DiagonalGaussian, Distribution
from algorithms.fisher.factors import Factors, kronecker_factors
from algorithms.fisher.metrics.kfac import KFAC
from algorithms.fisher.parameters import flatten
from algorithms.parts.algorithm import Outcome
from algorithms.parts.kfac_step import KFACStep
from algorithms.parts.policy import Policy
from algorithms.parts.surrogate import Surrogate
from tests.algorithms.problems import DISTRIBUTIONS, make_policy, make_problem
from tests.settings import compose

GAUSSIAN = DISTRIBUTIONS[0]
both = pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=lambda d: type(d).__name__)


def make_acktr(policy: Policy, *overrides: str) -> ACKTR:
    settings = (
        "algorithm.samples=null",
        "algorithm.learning_rate=1e6",
        "algorithm.rho=0",
        "rollout.num_envs=4",
        "algorithm.batch_size=24",
    )
    config = compose("algorithm=acktr", "env=hopper", *settings, *overrides)
    algorithm = config.algorithm_class(config.algorithm, config.pair, policy, np.random.default_rng(0))
    assert isinstance(algorithm, ACKTR)
    return algorithm


def damped(problem: Surrogate, damping: float) -> Tensor:
    """The damped K-FAC matrix of one batch, written out."""
    factors = kronecker_factors(problem.model, None, np.random.default_rng(0))
    return KFAC(problem.theta, factors).dense(damping)


def length(change: Tensor, metric: Tensor) -> float:
    """Half the squared length in a metric: the divergence that its quadratic model predicts."""
    return 0.5 * float(change @ metric @ change)


@both
@pytest.mark.parametrize("momentum", [0.0, 0.7])
def test_the_first_step_is_the_dense_one(distribution: Distribution, momentum: float) -> None:
    policy = make_policy(distribution)
    problem = make_problem(policy)
    acktr = make_acktr(policy, f"algorithm.momentum={momentum}", "algorithm.delta=0.02", "algorithm.damping=0.1")
    update = acktr.update(problem, 1.0)
    f, g = damped(problem, 0.1), problem.gradient
    x = torch.linalg.solve(f, g)
    eta = math.sqrt(2 * 0.02 / float(x @ f @ x))
    torch.testing.assert_close(flatten(policy) - problem.theta, (1 - momentum) * eta * x, rtol=1e-9, atol=1e-12)
    assert update.metrics["step_size"] == pytest.approx(eta, rel=1e-10)
    assert update.damping == 0.1
    if not momentum:
        assert length(eta * x, f) == pytest.approx(0.02, rel=1e-10)
        assert update.metrics["predicted_kl"] == pytest.approx(0.02, rel=1e-10)


def test_damping_grows_with_the_trace() -> None:
    policy = make_policy(GAUSSIAN)
    problem = make_problem(policy)
    update = make_acktr(policy, "algorithm.rho=3", "algorithm.damping=0.05").update(problem, 1.0)
    f = damped(problem, 0.0)
    damping = 0.05 + 3 * float(f.trace()) / len(f)
    assert update.damping == pytest.approx(damping, rel=1e-12)
    x = torch.linalg.solve(damped(problem, damping), problem.gradient)
    step = flatten(policy) - problem.theta
    torch.testing.assert_close(step / step.norm(), x / x.norm(), rtol=1e-9, atol=1e-12)


def test_the_learning_rate_caps_the_step_and_follows_its_schedule() -> None:
    policy = make_policy(GAUSSIAN)
    problem = make_problem(policy)
    acktr = make_acktr(policy, "algorithm.momentum=0", "algorithm.learning_rate=1e-3")
    assert acktr.update(problem, 0.5).metrics["step_size"] == 0.5e-3
    x = torch.linalg.solve(damped(problem, acktr.config.damping), problem.gradient)
    torch.testing.assert_close(flatten(policy) - problem.theta, 0.5e-3 * x, rtol=1e-9, atol=1e-12)


def test_eta_max_follows_the_divergence_of_the_steps_that_were_made(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = make_policy(GAUSSIAN)
    settings = ("algorithm.learning_rate=1", "algorithm.delta=0.02", "algorithm.adaptation=1.5")
    acktr = make_acktr(policy, *settings)
    seen = []
    for kl in (0.041, 0.05, 0.03, 0.011, 0.009, 0.001, 0.001):
        monkeypatch.setattr(DiagonalGaussian, "kl", lambda self, old, new, kl=kl: torch.full((24,), kl))
        update = acktr.update(make_problem(policy), 1.0)
        assert update.metrics["eta_max"] == acktr.eta_max
        seen.append(acktr.eta_max)
    assert seen == pytest.approx([1 / 1.5, 1 / 1.5**2, 1 / 1.5**2, 1 / 1.5**2, 1 / 1.5, 1, 1])


def test_eta_max_brings_the_divergence_into_its_band_where_k_fac_underestimates_it() -> None:
    """On one batch seen again and again, from a radius whose steps measure several times what K-FAC says."""
    policy = make_policy(GAUSSIAN, hidden=(16, 16))
    settings = ("algorithm.learning_rate=1", "algorithm.damping=1e-4", "algorithm.momentum=0")
    acktr = make_acktr(policy, *settings, "algorithm.delta=0.02", "algorithm.adaptation=1.5")
    divergences = []
    for _ in range(30):
        problem = make_problem(policy, n=200)
        acktr.update(problem, 1.0)
        divergences.append(problem.evaluate(flatten(policy))[1])
    assert divergences[0] > 2 * 0.02
    assert 0.25 * 0.02 < sum(divergences[-10:]) / 10 < 2.5 * 0.02


@both
def test_momentum_adds_up_and_never_leaves_the_trust_region(
    distribution: Distribution, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Equal gradients make the buffer grow, and the metric moves under it."""
    policy = make_policy(distribution)
    acktr = make_acktr(policy, "algorithm.momentum=0.9", "algorithm.delta=0.02", "algorithm.decay=0")
    ones, lengths, changes = torch.ones_like(flatten(policy)), [], []
    for seed in range(12):
        problem = make_problem(policy, seed=seed)
        monkeypatch.setattr(problem, "gradient_with_bonus", lambda _: ones)
        f = damped(problem, acktr.config.damping)
        acktr.update(problem, 1.0)
        changes.append(flatten(policy) - problem.theta)
        lengths.append(length(changes[-1], f))
    assert max(lengths) <= 0.02 * (1 + 1e-9)
    assert lengths[0] == pytest.approx(0.1**2 * 0.02, rel=1e-9)
    assert lengths[-1] > 0.2 * 0.02
    second = changes[1] - 0.9 * changes[0]  # what is new in the second change is a step up the gradient
    assert float(second.sum()) > 0


def test_the_change_is_scaled_back_to_the_radius_of_the_present_metric() -> None:
    """A buffer of the full radius is too long once the metric has become a hundred times steeper."""
    policy = make_policy(GAUSSIAN)
    acktr = make_acktr(policy, "algorithm.momentum=0.9", "algorithm.delta=0.02", "algorithm.decay=0")
    problem = make_problem(policy)
    factors = kronecker_factors(problem.model, None, np.random.default_rng(0))
    acktr.step(problem.theta, problem.gradient, 1.0, factors)
    steep = [Factors(f.layer, f.a, 100 * f.g) for f in factors]
    step = acktr.step(problem.theta, problem.gradient, 1.0, steep)
    assert step.change is not None
    f = KFAC(problem.theta, steep).dense(acktr.config.damping)
    assert length(step.change, f) <= 0.02 * (1 + 1e-9)
    assert step.metrics["predicted_kl"] == pytest.approx(length(step.change, f), rel=1e-9)


def test_factors_are_a_running_average_that_starts_at_the_first_batch() -> None:
    policy = make_policy(GAUSSIAN)
    acktr = make_acktr(policy, "algorithm.decay=0.9")
    batches = []
    for seed in (1, 2):
        problem = make_problem(policy, seed=seed)
        batches.append(kronecker_factors(problem.model, None, np.random.default_rng(0)))
        acktr.update(problem, 1.0)
    for running, first, second in zip(acktr.step.running.factors, *batches, strict=True):
        torch.testing.assert_close(running.a, 0.9 * first.a + 0.1 * second.a, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(running.g, 0.9 * first.g + 0.1 * second.g, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("samples", ["null", "1"])
def test_the_block_of_log_sigma_is_exactly_2(samples: str) -> None:
    policy = make_policy(GAUSSIAN).float()
    acktr = make_acktr(policy, f"algorithm.samples={samples}")
    for seed in range(3):
        acktr.update(make_problem(policy, seed=seed), 1.0)
    block = acktr.step.running.factors[-1]
    assert block.layer.name == "log_std"
    assert torch.equal(block.a, torch.ones(1, 1))
    torch.testing.assert_close(block.g, 2 * torch.eye(2), rtol=1e-6, atol=0)


def test_factors_are_factorised_at_every_kth_update_only() -> None:
    policy = make_policy(GAUSSIAN)
    acktr = make_acktr(policy, "algorithm.inverse_interval=3")
    metrics = []
    for seed in range(7):
        acktr.update(make_problem(policy, seed=seed), 1.0)
        metrics.append(acktr.step.metric)
    assert [metric is metrics[0] for metric in metrics] == [True, True, True, False, False, False, False]
    assert metrics[3] is metrics[5]
    assert metrics[6] is not metrics[5]


def test_the_network_is_left_as_it_was_built() -> None:
    policy = make_policy(GAUSSIAN)
    before = [(name, type(module)) for name, module in policy.named_modules()]
    make_acktr(policy).update(make_problem(policy), 1.0)
    assert [(name, type(module)) for name, module in policy.named_modules()] == before
    assert not any(module._forward_hooks or module._backward_hooks for module in policy.modules())
    assert all(p.grad is None for p in policy.parameters())


def poisoned(factors: list[Factors], which: int) -> list[Factors]:
    return [Factors(f.layer, f.a, f.g * math.nan) if i == which else f for i, f in enumerate(factors)]


def test_factors_that_are_not_finite_are_left_out_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = make_policy(GAUSSIAN)
    acktr = make_acktr(policy)
    assert acktr.update(make_problem(policy), 1.0).metrics["factors_skipped"] == 0
    good = acktr.step.running.factors
    monkeypatch.setattr("algorithms.acktr.kronecker_factors", lambda *args: poisoned(kronecker_factors(*args), 1))
    update = acktr.update(make_problem(policy, seed=2), 1.0)
    assert (update.outcome, update.metrics["factors_skipped"]) == (Outcome.STEPPED, 1)
    assert acktr.step.running.factors is good
    assert torch.isfinite(flatten(policy)).all()


def test_without_any_finite_factors_the_update_is_non_finite_and_nothing_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = make_policy(GAUSSIAN)
    acktr, before = make_acktr(policy), flatten(policy)
    monkeypatch.setattr("algorithms.acktr.kronecker_factors", lambda *args: poisoned(kronecker_factors(*args), 0))
    update = acktr.update(make_problem(policy), 1.0)
    assert (update.outcome, update.metrics["factors_skipped"]) == (Outcome.NON_FINITE, 1)
    assert torch.equal(flatten(policy), before)


def test_singular_factors_without_damping_are_mended_by_a_jitter_that_is_counted() -> None:
    """One state gives factors of rank one."""
    policy = make_policy(GAUSSIAN)
    acktr, before = make_acktr(policy, "algorithm.damping=0"), flatten(policy)
    problem = make_problem(policy, n=1, num_envs=1)
    problem.batch.advantages.fill_(1.0)
    update = acktr.update(problem, 1.0)
    assert update.metrics["factor_jitters"] in range(1, 100)
    assert update.outcome in (Outcome.STEPPED, Outcome.ILL_CONDITIONED)
    assert torch.isfinite(flatten(policy)).all()
    assert (update.outcome is Outcome.STEPPED) != torch.equal(flatten(policy), before)


def test_an_indefinite_factor_is_ill_conditioned_and_nothing_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    def indefinite(*args: Any) -> list[Factors]:
        return [Factors(f.layer, f.a, -f.g) for f in kronecker_factors(*args)]

    policy = make_policy(GAUSSIAN)
    acktr, before = make_acktr(policy, "algorithm.damping=0"), flatten(policy)
    monkeypatch.setattr("algorithms.acktr.kronecker_factors", indefinite)
    update = acktr.update(make_problem(policy), 1.0)
    assert update.outcome is Outcome.ILL_CONDITIONED
    assert torch.equal(flatten(policy), before)
    assert acktr.step.momentum is None


@pytest.mark.parametrize(("advantage", "outcome"), [(0.0, Outcome.ZERO_GRADIENT), (math.nan, Outcome.NON_FINITE)])
def test_degenerate_gradients_are_named_and_leave_everything_as_it_was(advantage: float, outcome: Outcome) -> None:
    policy = make_policy(GAUSSIAN)
    acktr = make_acktr(policy)
    acktr.update(make_problem(policy), 1.0)
    before, running = flatten(policy), acktr.step.running.factors
    problem = make_problem(policy)
    problem.batch.advantages.fill_(advantage)
    assert acktr.update(problem, 1.0).outcome is outcome
    assert torch.equal(flatten(policy), before)
    assert acktr.step.running.factors is running


def test_a_network_with_an_unknown_layer_is_refused_by_name() -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))
    with pytest.raises(TypeError, match="LayerNorm"):
        KFACStep(compose("algorithm=acktr", "env=hopper").algorithm, network)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("algorithm.delta=0", r"algorithm\.delta=0\.0: must be above 0"),
        ("algorithm.damping=-1", r"algorithm\.damping=-1\.0: must not be negative"),
        ("algorithm.momentum=1", r"algorithm\.momentum=1\.0: must lie in \[0, 1\)"),
        ("algorithm.decay=1", r"algorithm\.decay=1\.0: must lie in \[0, 1\)"),
        ("algorithm.inverse_interval=0", r"algorithm\.inverse_interval=0: must be at least 1"),
        ("algorithm.adaptation=0.5", r"algorithm\.adaptation=0\.5: must be at least 1"),
        ("algorithm.samples=0", r"algorithm\.samples=0: must be at least 1"),
        ("critic.delta=0", r"critic\.delta=0\.0: must be above 0"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compose("algorithm=acktr", "env=hopper", override)


def test_the_gradient_is_scaled_down_to_the_largest_norm() -> None:
    """Far inside the trust region the step is linear in g."""
    steps = []
    for norm in ("null", "0.01"):
        policy = make_policy(GAUSSIAN)
        problem = make_problem(policy)
        settings = ("algorithm.learning_rate=1e-4", "algorithm.delta=1e9", f"algorithm.max_gradient_norm={norm}")
        make_acktr(policy, *settings).update(problem, 1.0)
        steps.append(flatten(policy) - problem.theta)
    torch.testing.assert_close(steps[1], 0.01 / problem.gradient.norm() * steps[0], rtol=1e-8, atol=1e-14)


def test_factors_on_some_states_are_those_of_the_states_that_its_own_stream_draws() -> None:
    policy = make_policy(GAUSSIAN)
    problem = make_problem(policy)
    acktr = make_acktr(policy, "algorithm.states=5", "algorithm.learning_rate=1e-9")
    rng = np.random.default_rng(0)
    expected = kronecker_factors(problem.model.subsample(5, rng), None, rng)
    acktr.update(problem, 1.0)
    for found, f in zip(acktr.step.running.factors, expected, strict=True):
        assert torch.equal(found.a, f.a)
        assert torch.equal(found.g, f.g)


@both
def test_the_entropy_bonus_adds_its_gradient(distribution: Distribution) -> None:
    policy = make_policy(distribution)
    problem = make_problem(policy)
    policy.states_per_pass = 5  # batches in parts sum to the whole
    entropy = distribution.entropy(policy(problem.batch.observations)).mean()
    bonus = torch.cat([g.flatten() for g in torch.autograd.grad(entropy, list(policy.parameters()))])
    torch.testing.assert_close(problem.gradient_with_bonus(0.3), problem.gradient + 0.3 * bonus)
