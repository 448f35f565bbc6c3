"""Advantages against the definition written as a sum, and the degenerate batches."""

import numpy as np
import pytest
import torch

from algorithms.parts.batch import Batch, explained_variance, gae, normalise_advantages

GAMMA, LAMBDA = 0.9, 0.8


def by_definition(rewards, values, next_values, terminated, done):  # type: ignore[no-untyped-def]
    """A_t = sum_l (gamma lambda)^l delta_{t+l}, up to the end of the episode or of the batch; one environment."""
    advantages = np.zeros(len(rewards))
    for t in range(len(rewards)):
        for k in range(t, len(rewards)):
            bootstrap = 0.0 if terminated[k] else next_values[k]
            advantages[t] += (GAMMA * LAMBDA) ** (k - t) * (rewards[k] + GAMMA * bootstrap - values[k])
            if done[k]:
                break
    return advantages


def test_gae_equals_its_definition_with_terminations_and_truncations() -> None:
    rng = np.random.default_rng(0)
    shape = (30, 5)
    rewards, values, next_values = rng.standard_normal((3, *shape))
    terminated = rng.random(shape) < 0.1
    done = terminated | (rng.random(shape) < 0.1)
    assert (done & ~terminated).any()
    advantages = gae(rewards, values, next_values, terminated, done, GAMMA, LAMBDA)
    for n in range(shape[1]):
        columns = (x[:, n] for x in (rewards, values, next_values, terminated, done))
        np.testing.assert_allclose(advantages[:, n], by_definition(*columns), rtol=1e-12, atol=1e-14)


def test_a_task_cut_off_by_a_limit_keeps_the_value_of_going_on() -> None:
    """Reward 1 for ever is worth 1 / (1 - gamma): with that as V, advantages vanish only if a limit bootstraps."""
    shape = (10, 1)
    rewards, values = np.ones(shape), np.full(shape, 1 / (1 - GAMMA))
    done = np.zeros(shape, dtype=bool)
    done[[4, 9]] = True
    cut_off = gae(rewards, values, values, np.zeros_like(done), done, GAMMA, LAMBDA)
    np.testing.assert_allclose(cut_off, 0, atol=1e-12)
    ended = gae(rewards, values, values, done, done, GAMMA, LAMBDA)
    assert ended[4, 0] == pytest.approx(-GAMMA / (1 - GAMMA))


def test_normalised_advantages_have_mean_0_and_standard_deviation_1() -> None:
    normalised = normalise_advantages(np.random.default_rng(0).standard_normal((16, 4)) * 7 + 3)
    assert normalised.mean() == pytest.approx(0, abs=1e-12)
    assert normalised.std() == pytest.approx(1)


@pytest.mark.parametrize("value", [0.0, 0.1, -1e6])
def test_constant_advantages_become_exactly_zero(value: float) -> None:
    assert not normalise_advantages(np.full((128, 16), value)).any()


def batch(values: list[float], targets: list[float]) -> Batch:
    empty = torch.zeros(len(values))
    return Batch(empty, empty, empty, torch.tensor(values), torch.tensor(targets), 1)


def test_explained_variance() -> None:
    assert explained_variance(batch([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])) == 1.0
    assert explained_variance(batch([0.0, 0.0, 0.0], [1.0, 2.0, 3.0])) == 0.0
    assert explained_variance(batch([1.0, 2.0, 3.0], [2.0, 2.0, 2.0])) is None
