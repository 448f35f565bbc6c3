"""The networks that policies and critics share, and batches that go through them in parts."""

import re

import numpy as np
import pytest
import torch
from torch import nn

from algorithms.fisher.distributions import Categorical
from algorithms.fisher.parameters import assign, flatten
from algorithms.parts.policy import NetworkConfig, Pixels, Policy, network, normalise_images
from algorithms.parts.surrogate import Surrogate
from tests.algorithms.problems import POLICIES, every_policy, make_policy, make_problem, random_vectors
from tests.settings import compose

NATURE = NetworkConfig(convolutions=[[32, 8, 4], [64, 4, 2], [64, 3, 1]], hidden=[512], activation="relu")
IMAGE = (4, 84, 84)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def images(n: int, shape: tuple[int, ...] = IMAGE) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (n, *shape), dtype=np.uint8))


def test_the_network_of_atari_is_that_of_mnih_et_al_2015() -> None:
    """Written out layer by layer, with the same weights."""
    config = compose("algorithm=ppo", "env=atari", "env.game=pong").network
    assert (config.convolutions, config.hidden, config.activation) == (NATURE.convolutions, [512], "relu")
    net = network(IMAGE, 6, config, 0.01, generator())
    convolutions = [layer for layer in net if isinstance(layer, nn.Conv2d)]
    linear = [layer for layer in net if isinstance(layer, nn.Linear)]
    h = images(3).float() / 255
    for layer, stride in zip(convolutions, (4, 2, 1), strict=True):
        h = torch.nn.functional.conv2d(h, layer.weight, layer.bias, stride).relu()
    h = (h.flatten(1) @ linear[0].weight.mT + linear[0].bias).relu()
    torch.testing.assert_close(net(images(3)), h @ linear[1].weight.mT + linear[1].bias)
    assert [tuple(layer.weight.shape) for layer in convolutions] == [(32, 4, 8, 8), (64, 32, 4, 4), (64, 64, 3, 3)]
    assert [tuple(layer.weight.shape) for layer in linear] == [(512, 3136), (6, 512)]


def test_uniform_weights_are_those_that_layers_of_torch_start_with() -> None:
    """Within 1 / sqrt(inputs), the last layer times its gain; so are biases. And another name is refused."""
    net = network((100,), 50, NetworkConfig(hidden=[400], initialisation="uniform"), 0.01, generator())
    hidden, last = (layer for layer in net if isinstance(layer, nn.Linear))
    for layer, bound in ((hidden, 1 / 10), (last, 0.01 / 20)):
        for parameter in (layer.weight, layer.bias):
            assert 0.9 * bound < parameter.abs().max() <= bound
            assert parameter.detach().std().item() == pytest.approx(bound / 3**0.5, rel=0.2)
    with pytest.raises(ValueError, match=r"^network\.initialisation=xavier: choose one of orthogonal, uniform$"):
        NetworkConfig(initialisation="xavier")


def test_weights_start_orthogonal_with_their_gains_and_biases_at_0() -> None:
    net = network(IMAGE, 6, NATURE, 0.01, generator())
    layers = [layer for layer in net if isinstance(layer, nn.Conv2d | nn.Linear)]
    for layer in layers:
        rows = layer.weight.detach().flatten(1).double()
        gram = rows @ rows.mT if len(rows) <= rows.shape[1] else rows.mT @ rows
        gain = 0.01 if layer is layers[-1] else 2**0.5
        torch.testing.assert_close(gram, gain**2 * torch.eye(len(gram), dtype=gram.dtype), rtol=0, atol=1e-5 * gain)
        assert layer.bias is not None
        assert not layer.bias.any()


def test_images_are_scaled_once_whether_they_come_as_bytes_or_as_their_values_in_any_precision() -> None:
    expected, pixels = images(2).double() / 255, Pixels(IMAGE)
    assert torch.equal(pixels(images(2).double()), expected)
    assert torch.equal(pixels(images(2)), pixels(images(2).float()))
    torch.testing.assert_close(pixels(images(2)).double(), expected, rtol=1e-6, atol=0)
    assert pixels(images(2)).is_contiguous(memory_format=torch.channels_last)


def test_normalised_images_have_mean_0_at_every_pixel_and_deviation_1_over_all() -> None:
    net, seen = network(IMAGE, 6, NATURE, 0.01, generator()), images(50).double()
    count = sum(p.numel() for p in net.parameters())
    normalise_images(net, seen.mean(0).numpy(), seen.var(0, correction=0).numpy())
    normalised = net[0](seen)
    torch.testing.assert_close(normalised.mean(0), torch.zeros(IMAGE).double(), rtol=0, atol=1e-6)
    assert float(normalised.square().mean().sqrt()) == pytest.approx(1, rel=1e-6)
    assert sum(p.numel() for p in net.parameters()) == count  # no part of theta
    other = network(IMAGE, 6, NATURE, 0.01, generator())
    other.load_state_dict(net.state_dict())
    assert torch.equal(other(images(3)), net(images(3)))


def test_images_that_never_change_are_normalised_to_finite_numbers() -> None:
    net, one = network(IMAGE, 6, NATURE, 0.01, generator()), images(1)
    normalise_images(net, one[0].double().numpy(), np.zeros(IMAGE))
    assert not net[0](one).any()
    assert net[0](one + 3).abs().max() <= 255


@pytest.mark.parametrize(
    ("shape", "convolutions", "says"),
    [
        ((3,), [[32, 8, 4]], "does not suit observations of shape (3,); choose []"),
        (IMAGE, [], "does not suit observations of shape (4, 84, 84); choose [[32, 8, 4], "),
        ((4, 7, 7), [[32, 8, 4]], "images of shape (4, 7, 7) are too small"),
        ((4, 20, 20), [[32, 8, 4], [64, 5, 1]], "images of shape (4, 20, 20) are too small"),
    ],
)
def test_a_network_that_does_not_suit_the_observations_is_refused_by_name(
    shape: tuple[int, ...], convolutions: list[list[int]], says: str
) -> None:
    with pytest.raises(
        ValueError, match=rf"^network\.convolutions={re.escape(str(convolutions))}: .*{re.escape(says)}"
    ):
        network(shape, 2, NetworkConfig(convolutions=convolutions), 1.0, generator())


@pytest.mark.parametrize("convolutions", [[[32, 8]], [[32, 8, 0]], [[32, 8, 4, 1]]])
def test_layers_that_are_no_convolutions_are_refused(convolutions: list[list[int]]) -> None:
    with pytest.raises(
        ValueError, match=r"^network\.convolutions=.*: every layer must be \[channels, kernel, stride\]"
    ):
        NetworkConfig(convolutions=convolutions)


def in_parts(problem: Surrogate, states: int | None) -> Surrogate:
    problem.policy.states_per_pass = states
    return Surrogate(problem.policy, problem.batch)


@every_policy
@pytest.mark.parametrize("states", [1, 7, 23])
def test_a_batch_in_parts_gives_what_the_whole_batch_gives(policy: str, states: int) -> None:
    problem = make_problem(POLICIES[policy]())
    whole, parts = in_parts(problem, None), in_parts(problem, states)
    v = random_vectors(problem)
    torch.testing.assert_close(parts.gradient, whole.gradient, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(parts.z, whole.z, rtol=1e-12, atol=1e-14)
    assert parts.evaluate(problem.theta + 0.1 * v) == pytest.approx(whole.evaluate(problem.theta + 0.1 * v), rel=1e-11)
    assert float(parts.fisher.quadratic(v)) == pytest.approx(float(whole.fisher.quadratic(v)), rel=1e-12)
    assert float(parts.fisher.quadratic(v)) == pytest.approx(float(v @ whole.fisher.product(v)), rel=1e-11)


def test_the_problem_on_some_of_its_states_is_that_of_a_batch_of_them() -> None:
    """Also after the policy has moved, which the problem must not follow."""
    problem = make_problem(make_policy(Categorical(3)))
    chosen = torch.tensor([3, 17, 4])
    expected = Surrogate(problem.policy, problem.batch.select(chosen))
    _ = expected.z
    before = flatten(problem.policy)
    assign(problem.policy, before + 1)
    local = problem.on(chosen)
    assert torch.equal(local.batch.observations, problem.batch.observations[chosen])
    assert torch.equal(local.z, expected.z)
    assert torch.equal(local.gradient, expected.gradient)


def test_actions_of_images_are_those_of_their_logits() -> None:
    policy = Policy(IMAGE, Categorical(6), NATURE, generator())
    with torch.no_grad():
        expected = policy(images(5)).argmax(-1).numpy()
    assert np.array_equal(policy.actor()(images(5).numpy(), None), expected)
