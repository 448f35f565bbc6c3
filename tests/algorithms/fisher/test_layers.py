"""Which layers have a per-state gradient in closed form, and how their parameters lie in theta."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from algorithms.fisher.distributions import Categorical
from algorithms.fisher.factors import kronecker_factors
from algorithms.fisher.layers import Constant, layers_of
from algorithms.fisher.metric import Model
from algorithms.fisher.parameters import as_function, assign, flatten
from algorithms.fisher.trace import fisher_trace
from tests.algorithms.problems import POLICIES, assert_close, every_policy, layer_truths, make_problem, random_vectors


class Twice(nn.Module):
    """One linear layer, applied to its own output."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.shared(torch.tanh(self.shared(x)))
        return result


class Unused(nn.Module):
    """A layer that the output does not depend on."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.spare = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.used(x)
        return result


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.second(torch.tanh(self.first(x)))
        return result


class Scaled(nn.Module):
    """A parameter beside its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.scale * self.linear(x)
        return result


def with_head(convolution: nn.Conv2d) -> nn.Module:
    return nn.Sequential(convolution, nn.Flatten(), nn.LazyLinear(3))


VECTORS, IMAGES, SEQUENCES = (4, 3), (4, 2, 5, 5), (4, 2, 3)

UNKNOWN: dict[str, tuple[nn.Module, tuple[int, ...], str]] = {
    "normalisation": (nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3)), VECTORS, r"layer 1: LayerNorm has parameters"),
    "the top": (nn.LayerNorm(3), VECTORS, r"layer at the top: LayerNorm"),
    "a parameter beside layers": (Scaled(), VECTORS, r"layer at the top: Scaled has parameters of its own"),
    "groups": (with_head(nn.Conv2d(2, 2, 3, groups=2)), IMAGES, r"layer 0: Conv2d with groups=2"),
    "padding by name": (with_head(nn.Conv2d(2, 2, 3, padding="same")), IMAGES, r"layer 0: Conv2d .*padding='same'"),
    "circular padding": (
        with_head(nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular")),
        IMAGES,
        r"layer 0: Conv2d .*padding_mode=circular",
    ),
    "used twice": (Twice(), VECTORS, r"layer shared: used twice"),
    "not used": (Unused(), VECTORS, r"layer spare: has parameters, but takes no part"),
    "several positions": (
        nn.Sequential(nn.Linear(3, 3), nn.Flatten(), nn.Linear(6, 3)),
        SEQUENCES,
        r"layer 0: input of shape \(4, 2, 3\)",
    ),
    "tied weights": (Tied(), VECTORS, r"layer second: "),
}


def random_model(network: nn.Module, shape: tuple[int, ...]) -> Model:
    """A network with parameters and inputs drawn from one seed."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(shape, generator=generator, dtype=torch.float64)
    network = network.double()
    network(inputs)
    assign(network, 0.5 * torch.randn(len(flatten(network)), generator=generator, dtype=torch.float64))
    return Model(network, flatten(network), inputs, Categorical(3), torch.zeros(len(inputs), dtype=torch.int64))


@pytest.mark.parametrize("case", UNKNOWN)
def test_a_layer_without_a_closed_form_is_refused_by_its_name(case: str) -> None:
    network, shape, message = UNKNOWN[case]
    model = random_model(network, shape)
    with pytest.raises(TypeError, match=message):
        fisher_trace(model)
    assert not any(module._forward_hooks for module in network.modules())


class Branches(nn.Module):
    """Layers defined in another order than they are used in, one without a bias, and a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)
        self.offset = Constant(torch.zeros(3))
        self.body = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(self.body(x)) + self.offset(x)
        return result


KNOWN: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "branches": (Branches(), VECTORS),
    "without bias": (nn.Sequential(nn.Linear(3, 4, bias=False), nn.Tanh(), nn.Linear(4, 3, bias=False)), VECTORS),
    "rectangular convolution": (
        nn.Sequential(
            nn.Conv2d(2, 3, (2, 3), stride=(1, 2), padding=(1, 0), dilation=(2, 1)),
            nn.ReLU(),
            nn.Conv2d(3, 2, 2, bias=False),
            nn.Flatten(),
            nn.LazyLinear(3),
        ),
        IMAGES,
    ),
}


@pytest.mark.parametrize("case", KNOWN)
def test_per_state_gradients_are_those_of_autograd(case: str) -> None:
    """sum_t delta a^T, in the order of theta, for every state and output; their squares and norms likewise."""
    model = random_model(*KNOWN[case])
    jacobian = torch.autograd.functional.jacobian(as_function(model.module, model.inputs), model.theta)
    for k in range(3):
        z, passes = model.forward()
        outputs = torch.autograd.grad(z[:, k].sum(), [p.output for p in passes])
        gradients = [
            torch.einsum("sto,sti->soi", p.layer.outputs(d), p.inputs) for p, d in zip(passes, outputs, strict=True)
        ]
        vectors = [p.layer.vector(g) for p, g in zip(passes, gradients, strict=True)]
        assert_close(torch.cat(vectors, -1), jacobian[:, k])
        squares = [p.layer.vector(p.mean_squares(d)) for p, d in zip(passes, outputs, strict=True)]
        assert_close(torch.cat(squares), jacobian[:, k].square().mean(0))
        norms = [p.squared_norms(d) for p, d in zip(passes, outputs, strict=True)]
        assert_close(torch.stack(norms).sum(0), jacobian[:, k].square().sum(-1))
        means = [p.layer.vector(p.mean_gradient(d)) for p, d in zip(passes, outputs, strict=True)]
        assert_close(torch.cat(means), jacobian[:, k].mean(0))


@pytest.mark.parametrize("case", KNOWN)
def test_layers_cover_theta_in_its_order(case: str) -> None:
    model = random_model(*KNOWN[case])
    layers = layers_of(model.module)
    assert [layer.start for layer in layers] == [0, *(layer.stop for layer in layers[:-1])]
    assert layers[-1].stop == len(model.theta)
    factors = kronecker_factors(model, None, np.random.default_rng(0))
    assert [f.layer.name for f in factors] == [layer.name for layer in layers]


@every_policy
def test_matrix_and_vector_are_inverses_and_a_bias_is_the_last_column(policy: str) -> None:
    problem = make_problem(POLICIES[policy]())
    layers, truths = layers_of(problem.policy), layer_truths(problem)
    for v in (random_vectors(problem), random_vectors(problem, 2).T):
        for layer, truth in zip(layers, truths, strict=True):
            matrix = layer.matrix(v)
            assert torch.equal(matrix, v[..., truth.index])
            assert torch.equal(layer.vector(matrix), v[..., layer.start : layer.stop])


def test_squares_in_an_orthogonal_basis_are_those_of_rotated_gradients() -> None:
    model = random_model(*KNOWN["rectangular convolution"])
    z, passes = model.forward()
    outputs = torch.autograd.grad(z[:, 0].sum(), [p.output for p in passes])
    generator = torch.Generator().manual_seed(1)
    for p, delta in zip(passes, outputs, strict=True):
        left, right = (
            torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))[0]
            for n in (p.layer.n_out, p.inputs.shape[-1])
        )
        gradients = torch.einsum("sto,sti->soi", p.layer.outputs(delta), p.inputs)
        assert_close(p.mean_squares(delta, (left, right)), (left.T @ gradients @ right).square().mean(0))
