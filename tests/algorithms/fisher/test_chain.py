"""Chains against autograd: outputs, J v and J^T u of every kind of chain, and which networks are none."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from algorithms.fisher.chain import chain_of
from algorithms.fisher.distributions import Categorical, DiagonalGaussian
from algorithms.fisher.layers import Constant, OutputNetwork
from algorithms.fisher.parameters import as_function, assign, flatten
from algorithms.parts.policy import ACTIVATIONS
from tests.algorithms.problems import assert_close, both, make_conv_policy, make_policy, make_problem, random_vectors

STATES = torch.randn(7, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

LAST_ACTIVE = nn.Sequential(nn.Linear(3, 4), nn.ELU(), nn.Linear(4, 4, bias=False), nn.Linear(4, 2), nn.Tanh())
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    **{
        f"{type(d).__name__}-{activation}": lambda d=d, a=activation: make_policy(d, activation=a)  # type: ignore[misc]
        for d in (DiagonalGaussian(2), Categorical(3))
        for activation in ACTIVATIONS
    },
    "one layer": lambda: make_policy(Categorical(3), hidden=()),
    "no biases": lambda: nn.Sequential(nn.Linear(3, 4, bias=False), nn.ReLU(), nn.Linear(4, 2, bias=False)).double(),
    "an activation at the end": LAST_ACTIVE.double,
}


def truth(module: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
    """theta, z and J of shape (B, K, d)."""
    theta, function = flatten(module), as_function(module, STATES)
    jacobian: Tensor = torch.autograd.functional.jacobian(function, theta)
    return theta, function(theta), jacobian


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_and_products_of_a_chain_are_those_of_autograd(name: str) -> None:
    torch.manual_seed(0)
    module = NETWORKS[name]()
    theta, z, jacobian = truth(module)
    chain = chain_of(module)
    assert chain is not None
    assert_close(chain(STATES), z.detach(), 1e-14)
    at = chain.at(theta).linearise(STATES)
    v, u = torch.randn_like(theta), torch.randn_like(z)
    assert_close(at.z, z.detach(), 1e-14)
    assert_close(at.jvp(v), jacobian @ v, 1e-13)
    assert_close(at.vjp(u), torch.einsum("skd,sk->d", jacobian, u), 1e-13)


def test_a_chain_of_a_module_follows_it_and_a_chain_at_theta_does_not() -> None:
    policy = make_policy(DiagonalGaussian(2))
    chain, theta = chain_of(policy), flatten(policy)
    assert chain is not None
    at = chain.at(theta)
    before = policy(STATES).detach()
    assign(policy, theta + 1)
    assert torch.equal(chain(STATES), policy(STATES))
    assert torch.equal(at(STATES), before)
    theta += 1
    assert torch.equal(at(STATES), policy(STATES))


def test_derivatives_in_single_precision_are_those_of_double_precision_up_to_rounding() -> None:
    problem = make_problem(make_policy(DiagonalGaussian(2)))
    chain, v = chain_of(problem.policy), random_vectors(problem)
    assert chain is not None
    exact = chain.at(problem.theta).linearise(STATES)
    rounded = chain.at(problem.theta.float()).linearise(STATES.float())
    assert rounded.jvp(v.float()).dtype == torch.float32
    assert_close(rounded.jvp(v.float()).double(), exact.jvp(v), 1e-5)
    assert_close(rounded.vjp(exact.z.float()).double(), exact.vjp(exact.z), 1e-5)


@both
def test_a_problem_s_gradient_and_fisher_matrix_are_the_same_by_graph_and_by_chain(
    distribution: DiagonalGaussian | Categorical,
) -> None:
    """Batches in parts go through the graph."""
    by_chain, by_graph = (make_problem(make_policy(distribution)) for _ in range(2))
    by_graph.policy.states_per_pass = 5
    assert by_chain.model.linearised is not None
    assert by_graph.model.linearised is None
    v = random_vectors(by_chain)
    for beta in (0.0, 0.3):
        assert_close(by_chain.gradient_with_bonus(beta), by_graph.gradient_with_bonus(beta), 1e-12)
    assert_close(by_chain.fisher.product(v), by_graph.fisher.product(v), 1e-12)
    assert_close(by_chain.fisher.quadratic(v), by_graph.fisher.quadratic(v), 1e-12)


class Doubled(OutputNetwork):
    """An output network with a forward of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.network, self.log_std = nn.Sequential(nn.Linear(3, 2)), Constant(torch.zeros(2))

    def forward(self, inputs: Tensor) -> Tensor:
        return 2 * super().forward(inputs)


SHARED = nn.Linear(3, 3)


@pytest.mark.parametrize(
    "module",
    [
        make_conv_policy(Categorical(3)),
        nn.Sequential(nn.Flatten(), nn.Linear(3, 2)),
        nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2)),
        nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.ReLU()),
        nn.Sequential(nn.Tanh(), nn.Linear(3, 2)),
        nn.Sequential(nn.Linear(3, 2), nn.ELU(0.5)),
        nn.Sequential(SHARED, nn.Tanh(), SHARED),
        nn.Sequential(),
        nn.Linear(3, 2),
        Doubled(),
    ],
    ids=lambda module: type(module).__name__,
)
def test_other_networks_are_no_chains(module: nn.Module) -> None:
    assert chain_of(module) is None
