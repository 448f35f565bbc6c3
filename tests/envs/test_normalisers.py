"""Running statistics against those of all samples at once."""

import numpy as np
import pytest

from envs.normalisers import ObservationNormaliser, RewardNormaliser, RunningMoments


def test_moments_of_batches_equal_those_of_all_samples() -> None:
    samples = np.random.default_rng(0).standard_normal((1000, 3)) * [1, 1e3, 1e-3] + [0, 1e5, 0]
    moments = RunningMoments((3,))
    for batch in np.split(samples, [1, 10, 300]):
        moments.update(batch)
    np.testing.assert_allclose(moments.mean, samples.mean(0), rtol=1e-12, atol=1e-16)
    np.testing.assert_allclose(moments.variance, samples.var(0), rtol=1e-10)
    assert moments.count == 1000


def test_observations_are_standardised_with_the_statistics_before_the_batch() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal((500, 2)) * 3 + 1, rng.standard_normal((500, 2)) + 9
    normaliser = ObservationNormaliser((2,), enabled=True, clip=10.0)
    normaliser.update(first)
    before = normaliser(second)
    np.testing.assert_allclose(before, (second - first.mean(0)) / first.std(0), rtol=1e-5)
    assert before.dtype == np.float32
    normaliser.update(second)
    assert not np.allclose(normaliser(second), before)
    assert np.abs(normaliser(np.full((1, 2), 1e9))).max() == 10


def test_a_restored_normaliser_does_exactly_the_same() -> None:
    samples = np.random.default_rng(0).standard_normal((50, 2)) * 5
    normaliser, restored = (ObservationNormaliser((2,), enabled=True, clip=10.0) for _ in range(2))
    normaliser.update(samples)
    restored.load_state_dict(normaliser.state_dict())
    np.testing.assert_array_equal(normaliser(samples), restored(samples))


def test_rewards_are_scaled_by_the_deviation_of_the_discounted_return() -> None:
    gamma, rng = 0.9, np.random.default_rng(0)
    rewards, done = rng.standard_normal((40, 3)), rng.random((40, 3)) < 0.1
    returns = np.zeros((40, 3))
    for n in range(3):
        for t in range(40):
            carried = 0.0 if t == 0 or done[t - 1, n] else returns[t - 1, n]
            returns[t, n] = gamma * carried + rewards[t, n]
    normaliser = RewardNormaliser(3, gamma, "normalised", clip=10.0)
    for batch in (slice(0, 15), slice(15, 40)):
        normaliser.update(rewards[batch], done[batch])
    np.testing.assert_allclose(normaliser(rewards), rewards / returns.std(), rtol=1e-6)
    assert (np.sign(normaliser(rewards)) == np.sign(rewards)).all()
    normaliser.restart()
    assert not normaliser.discounted.any()


def test_switched_off_both_change_nothing() -> None:
    x = np.random.default_rng(0).standard_normal((4, 2)) * 100
    observations = ObservationNormaliser((2,), enabled=False, clip=1.0)
    observations.update(x)
    np.testing.assert_array_equal(observations(x), x.astype(np.float32))
    rewards = RewardNormaliser(2, 0.9, "raw", clip=1.0)
    rewards.update(x, np.zeros_like(x, dtype=bool))
    assert rewards(x) == pytest.approx(x)


def test_the_sign_of_a_reward_is_all_that_counts_if_asked_for() -> None:
    rewards = RewardNormaliser(3, 0.9, "sign", clip=0.5)
    np.testing.assert_array_equal(rewards(np.array([[200.0, 0.0, -0.1]])), [[1, 0, -1]])


def test_images_stay_the_bytes_they_are_and_no_copy_is_made() -> None:
    images = np.random.default_rng(0).integers(256, size=(5, 4, 8, 8), dtype=np.uint8)
    normaliser = ObservationNormaliser((4, 8, 8), enabled=False, clip=1.0)
    normaliser.update(images)
    assert normaliser(images) is images
    assert normaliser.image_moments is None


def test_the_moments_of_images_are_those_of_the_first_update_for_the_networks_to_use() -> None:
    images = np.random.default_rng(0).integers(256, size=(30, 20, 4, 8, 8), dtype=np.uint8)
    normaliser, restored = (ObservationNormaliser((4, 8, 8), enabled=True, clip=1.0) for _ in range(2))
    normaliser.update(images)
    normaliser.update(images[:1] // 2)
    assert normaliser(images) is images
    restored.load_state_dict(normaliser.state_dict())
    for each in (normaliser, restored):
        assert each.image_moments is not None
        np.testing.assert_allclose(each.image_moments.mean, images.mean((0, 1)), rtol=1e-12)
        np.testing.assert_allclose(each.image_moments.variance, images.var((0, 1)), rtol=1e-12)
    assert ObservationNormaliser((4,), enabled=True, clip=1.0).image_moments is None
