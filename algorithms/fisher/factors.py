"""Kronecker factors of a network's layers: estimated on a batch, and averaged over batches."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from algorithms.fisher.layers import Layer
from algorithms.fisher.metric import Backward, Model


@dataclass(frozen=True)
class Factors:
    """A and G of one layer: its block of F is close to A ⊗ G, that is V -> G V A for V of the layer's shape.

        A = E_s sum_t a_st a_st^T                shape (n_in + 1, n_in + 1)
        G = E_s E_a (1/T) sum_t delta_st delta_st^T      shape (n_out, n_out)

    (Martens and Grosse 2015, equation 1; for convolutions Grosse and Martens 2016, theorem 1.) The sum over positions
    stands in A and the mean in G, so that with one position, or with equal inputs at all of them and uncorrelated
    gradients, A ⊗ G has the scale of F itself. Code bases that divide A by T as well have a matrix T or T^2 times too
    small, and with it another meaning of damping and of the length of a step.
    """

    layer: Layer
    a: Tensor
    g: Tensor

    @property
    def is_finite(self) -> bool:
        return bool(torch.isfinite(self.a).all() and torch.isfinite(self.g).all())


def blockwise(v: Tensor, factors: list[Factors]) -> Tensor:
    """diag over layers of A ⊗ G, times v: G V A for the part V of each layer; v of shape (d,) or (d, k)."""
    columns = v.movedim(0, -1)
    return torch.cat([f.layer.vector(f.g @ f.layer.matrix(columns) @ f.a) for f in factors], -1).movedim(-1, 0)


def kronecker_factors(model: Model, samples: int | None, rng: np.random.Generator) -> list[Factors]:
    """Factors of every layer on the model's states, in the order of theta; `samples` and `rng` as in `Model.backward`.

    A `Constant` has A = 1 and its very block as G: 2 I for the log sigma of a Gaussian.

    Raises:
        TypeError: a layer of an unknown type.
    """
    return factors_of(model.backward(samples, rng))


def factors_of(backward: Iterable[Backward]) -> list[Factors]:
    """A of every layer that was passed, and G summed over its passes, in the order of theta."""
    factors: dict[str, Factors] = {}
    for p, delta in backward:
        d = p.layer.outputs(delta).flatten(0, 1)
        g = d.mT @ d / len(d)
        if p.layer.name in factors:
            factors[p.layer.name].g.add_(g)
        else:
            a = p.inputs.flatten(0, 1)
            factors[p.layer.name] = Factors(p.layer, a.mT @ a / len(p.inputs), g)
    return sorted(factors.values(), key=lambda f: f.layer.start)


class RunningFactors:
    """Exponential averages of factors over batches: A <- decay A + (1 - decay) A_batch, and G likewise.

    The first batch is taken as it is, so that no average starts from zero.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.factors: list[Factors] = []

    def add(self, batch: list[Factors]) -> bool:
        """Take one batch into the averages; False, and nothing is taken, when its factors are not finite."""
        if not all(f.is_finite for f in batch):
            return False
        self.factors = [
            Factors(old.layer, new.a.lerp(old.a, self.decay), new.g.lerp(old.g, self.decay))
            for old, new in zip(self.factors or batch, batch, strict=True)
        ]
        return True


def factors_to_state(factors: list[Factors]) -> list[dict[str, Tensor]]:
    """What a checkpoint keeps of factors."""
    return [{"a": f.a, "g": f.g} for f in factors]


def factors_from_state(state: list[dict[str, Tensor]], layers: list[Layer]) -> list[Factors]:
    """The factors of these layers that `factors_to_state` gave; none of an empty state."""
    return [Factors(layer, f["a"], f["g"]) for layer, f in zip(layers, state, strict=True)] if state else []
