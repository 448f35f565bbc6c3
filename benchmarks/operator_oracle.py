"""Curvature matrices of three tiny networks as curvlinops computes them; what the tests compare ours with.

    python -m venv PEER
    PEER/bin/pip install torch==2.13.0 curvlinops-for-pytorch==3.0.1
    PEER/bin/python benchmarks/operator_oracle.py tests/algorithms/fisher/data/curvlinops_oracle.json

Imports nothing of this repository. Everything is float64 and written with as many digits as it takes to read the same
number back. The file beside the JSON, SOURCE.md, says which conventions differ and what follows from that.
"""

import argparse
import json
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from curvlinops import EKFACLinearOperator, GGNLinearOperator, KFACLinearOperator  # type: ignore[import-not-found]
from torch import Tensor, nn

PACKAGES = ("torch", "curvlinops-for-pytorch")


def main() -> None:
    """Write the oracle."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="the JSON file to write")
    out = parser.parse_args().out
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    classes, squares = nn.CrossEntropyLoss(reduction="mean"), nn.MSELoss(reduction="mean")
    mlp = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 3))
    regression = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1))
    convolution = nn.Sequential(nn.Conv2d(1, 2, 2), nn.Tanh(), nn.Flatten(), nn.Linear(8, 2))
    oracle = {
        "versions": {package: metadata.version(package) for package in PACKAGES},
        "cases": {
            "categorical": case(mlp, classes, torch.randn(6, 2), torch.randint(3, (6,))),
            "unit_gaussian": case(regression, squares, torch.randn(6, 2), torch.randn(6, 1)),
            "convolution": case(convolution, classes, torch.randn(5, 1, 3, 3), torch.randint(2, (5,))),
        },
    }
    out.write_text(json.dumps(oracle, separators=(",", ":")) + "\n")


def case(network: nn.Module, loss: nn.Module, inputs: Tensor, targets: Tensor) -> dict[str, Any]:
    """Parameters, inputs and the upper triangles, row by row, of the network's matrices."""
    parameters = list(network.parameters())
    data = [(inputs, targets)]
    joint = {"fisher_type": "type-2", "kfac_approx": "expand", "separate_weight_and_bias": False}
    return {
        "theta": nn.utils.parameters_to_vector(parameters).tolist(),
        "inputs": inputs.tolist(),
        "ggn": upper(GGNLinearOperator(network, loss, parameters, data)),
        "kfac": upper(KFACLinearOperator(network, loss, parameters, data, **joint)),
        "ekfac": upper(EKFACLinearOperator(network, loss, parameters, data, **joint)),
    }


def upper(operator: Any) -> list[float]:
    """The upper triangle of an operator written out. Raises ValueError when it is not symmetric up to rounding."""
    dense = operator @ torch.eye(operator.shape[1])
    if not torch.allclose(dense, dense.mT, rtol=0, atol=1e-14 * float(dense.abs().max())):
        raise ValueError(f"{type(operator).__name__}: not symmetric")
    rows, columns = torch.triu_indices(*dense.shape)
    entries: list[float] = dense[rows, columns].tolist()
    return entries


if __name__ == "__main__":
    main()
