"""The trace of the Fisher matrix, state by state."""

import torch
from torch import Tensor, nn

from algorithms.fisher.distributions import Distribution
from algorithms.fisher.layers import forward_with_passes


def fisher_trace(module: nn.Module, theta: Tensor, inputs: Tensor, distribution: Distribution) -> Tensor:
    r"""tau_s = tr(J_s^T M_s J_s) = E_a ||grad_theta log p(a; z(s))||^2 for every state s: shape (B,), exact.

    With M_s = sum_i l_i l_i^T, tau_s = sum_i ||J_s^T l_i||^2. The gradient of a linear layer is an outer product, so
    ||J_s^T l||^2 = ||delta_s||^2 (||a_s||^2 + 1) layer by layer (Goodfellow 2015), and one backward pass per l_i over
    the whole batch gives every state its own trace. tr F is the mean over states.

    Args:
        module: the network, made of `Linear` and `Constant` layers.
        theta: its parameters, shape (d,).
        inputs: states, shape (B, n).
        distribution: the family that the network's output parametrises.

    Raises:
        TypeError: a layer with parameters of another type.
    """
    z, passes = forward_with_passes(module, theta, inputs)
    outputs = [p.output for p in passes]
    norms = [p.input_norms() for p in passes]
    trace = torch.zeros(len(inputs), dtype=z.dtype, device=z.device)
    for factor in distribution.fisher_factors(z.detach()):
        for norm, delta in zip(norms, torch.autograd.grad(z, outputs, factor, retain_graph=True), strict=True):
            trace += delta.square().sum(-1) * norm
    return trace
