"""The trace of the Fisher matrix, state by state."""

import numpy as np
from torch import Tensor

from algorithms.fisher.metric import Model


def fisher_trace(model: Model, samples: int | None = None, rng: np.random.Generator | None = None) -> Tensor:
    r"""tau_s = tr(J_s^T M_s J_s) = E_a ||grad_theta log p(a; z(s))||^2 for every state s: shape (B,).

    With M_s = sum_i l_i l_i^T, tau_s = sum_i ||J_s^T l_i||^2. The gradient of a linear layer is an outer product, so
    ||J_s^T l||^2 = ||delta_s||^2 ||a_s||^2 layer by layer (Goodfellow 2015), and one backward pass per l_i over the
    whole batch gives every state its own trace; a convolution sums over positions before the norm. tr F is the mean
    over states. Exact without `samples`; with it, an unbiased estimate from that many passes (`Model.backward`).

    Raises:
        TypeError: a layer of an unknown type.
    """
    trace = model.theta.new_zeros(len(model))
    for p, delta in model.backward(samples, rng):
        trace += p.squared_norms(delta)
    return trace
