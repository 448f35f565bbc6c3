"""The two critics: what one step of them is, that both fit, and what happens to bad targets."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from algorithms.critics.kfac import KFACCritic
from algorithms.fisher.distributions import UnitGaussian
from algorithms.fisher.factors import kronecker_factors
from algorithms.fisher.metric import Model
from algorithms.fisher.metrics.kfac import KFAC
from algorithms.fisher.parameters import as_function, flatten
from algorithms.parts.batch import Batch
from algorithms.parts.critic import Critic
from tests.settings import compose

each = pytest.mark.parametrize("name", ["adam", "kfac"])


def make_critic(name: str, *overrides: str, dtype: torch.dtype = torch.float32) -> Critic:
    config = compose("algorithm=acktr", "env=hopper", f"critic={name}", "network.hidden=[8,8]", *overrides)
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    critic = config.critic_class((3,), config.network, config.critic, generator, rng, torch.device("cpu"))
    critic.network.to(dtype)
    return critic


def make_batch(n: int = 256, dtype: torch.dtype = torch.float32) -> Batch:
    rng = np.random.default_rng(1)
    observations = torch.from_numpy(rng.standard_normal((n, 3))).to(dtype)
    targets = (observations[:, 0] * observations[:, 1]).sin() + observations[:, 2]
    zeros = torch.zeros(n, dtype=dtype)
    return Batch(observations, zeros[:, None], zeros, zeros, targets, 4)


def loss_of(critic: Critic, batch: Batch) -> float:
    return 0.5 * float((critic.values(batch.observations) - batch.targets).square().mean())


@each
def test_fitting_lowers_the_loss(name: str) -> None:
    critic, batch = make_critic(name), make_batch()
    before = loss_of(critic, batch)
    for _ in range(20):
        logged = critic.fit(batch, 1.0)
    assert math.isfinite(logged["critic_loss"])
    assert loss_of(critic, batch) < 0.2 * before


@each
def test_the_choice_of_critic_changes_no_initial_value(name: str) -> None:
    batch = make_batch()
    assert torch.equal(make_critic(name).values(batch.observations), make_critic("adam").values(batch.observations))


def test_the_first_kfac_step_is_the_dense_gauss_newton_one() -> None:
    settings = ("critic.epochs=1", "critic.minibatch_size=256", "critic.learning_rate=1e6", "critic.momentum=0.5")
    critic = make_critic("kfac", *settings, "critic.delta=0.01", "critic.damping=0.2", dtype=torch.float64)
    batch = make_batch(dtype=torch.float64)
    network, theta = critic.network, flatten(critic.network)
    model = Model(network, theta, batch.observations, UnitGaussian(), batch.targets)
    f = KFAC(theta, kronecker_factors(model, None, np.random.default_rng(0))).dense(0.2)
    jacobian: Any = torch.autograd.functional.jacobian(as_function(network, batch.observations), theta)
    error = critic.network(batch.observations).squeeze(-1).detach() - batch.targets
    g = -(jacobian.squeeze(1) * error[:, None]).mean(0)
    x = torch.linalg.solve(f, g)
    eta = math.sqrt(2 * 0.01 / float(x @ g))
    logged = critic.fit(batch, 1.0)
    torch.testing.assert_close(flatten(network) - theta, 0.5 * eta * x, rtol=1e-8, atol=1e-12)
    assert logged["critic_step_size"] == pytest.approx(eta, rel=1e-9)
    assert logged["critic_steps_failed"] == 0


def test_factors_on_all_states_in_any_order_give_the_step_of_the_whole_minibatch() -> None:
    settings = ("critic.epochs=1", "critic.minibatch_size=256", "critic.learning_rate=1e6", "critic.delta=0.01")
    whole, sampled = (make_critic("kfac", *settings, f"critic.states={n}", dtype=torch.float64) for n in ("null", 256))
    batch = make_batch(dtype=torch.float64)
    logged = [critic.fit(batch, 1.0) for critic in (whole, sampled)]
    torch.testing.assert_close(flatten(sampled.network), flatten(whole.network), rtol=1e-9, atol=1e-12)
    assert logged[0] == pytest.approx(logged[1], rel=1e-9)


def test_factors_on_some_states_are_those_of_the_states_that_the_critics_own_stream_draws() -> None:
    settings = ("critic.epochs=1", "critic.minibatch_size=256", "critic.learning_rate=1e-9", "critic.states=32")
    critic, batch = make_critic("kfac", *settings, dtype=torch.float64), make_batch(dtype=torch.float64)
    theta, rng = flatten(critic.network), np.random.default_rng(0)
    order = torch.from_numpy(rng.permutation(256))
    model = Model(critic.network, theta, batch.observations[order], UnitGaussian(), batch.targets[order])
    expected = kronecker_factors(model.subsample(32, rng), None, rng)
    critic.fit(batch, 1.0)
    assert isinstance(critic, KFACCritic)
    for found, f in zip(critic.step.running.factors, expected, strict=True):
        torch.testing.assert_close((found.a, found.g), (f.a, f.g), rtol=1e-12, atol=0)


def test_delta_is_half_the_mean_squared_change_of_the_values_where_k_fac_is_exact() -> None:
    """One linear layer is the whole Gauss-Newton matrix."""
    settings = ("critic.epochs=1", "critic.minibatch_size=256", "critic.learning_rate=1e6", "critic.momentum=0")
    critic = make_critic(
        "kfac", *settings, "network.hidden=[]", "critic.delta=0.03", "critic.damping=1e-12", dtype=torch.float64
    )
    batch = make_batch(dtype=torch.float64)
    before = critic.values(batch.observations)
    critic.fit(batch, 1.0)
    change = critic.values(batch.observations) - before
    assert 0.5 * float(change.square().mean()) == pytest.approx(0.03, rel=1e-5)


def test_targets_that_are_not_finite_leave_the_kfac_critic_as_it_was() -> None:
    critic, batch = make_critic("kfac"), make_batch()
    critic.fit(batch, 1.0)
    before = flatten(critic.network)
    batch.targets[3] = math.nan
    logged = critic.fit(batch, 1.0)
    assert logged["critic_steps_failed"] == critic.config.epochs * math.ceil(256 / critic.config.minibatch_size)
    assert math.isnan(logged["critic_loss"])
    assert torch.equal(flatten(critic.network), before)


def test_acktr_takes_the_kfac_critic_unless_another_is_asked_for() -> None:
    assert compose("algorithm=acktr", "env=hopper").critic_class is KFACCritic
    assert compose("algorithm=acktr", "env=hopper", "critic=adam").critic.name == "adam"
    assert compose("algorithm=trpo", "env=hopper").critic.name == "adam"
    assert compose("algorithm=trpo", "env=hopper", "critic=kfac").critic_class is KFACCritic
