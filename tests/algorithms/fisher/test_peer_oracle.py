"""Matrices against those of another library, computed once; data/SOURCE.md says how."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from algorithms.fisher.distributions import Categorical, Distribution, UnitGaussian
from algorithms.fisher.metric import Model, SampledConfig
from algorithms.parts.algorithm import load_fisher
from tests.algorithms.problems import assert_close

ORACLE = json.loads((Path(__file__).parent / "data" / "curvlinops_oracle.json").read_text())

NETWORKS: dict[str, tuple[nn.Module, Distribution, float]] = {
    "categorical": (nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 3)), Categorical(3), 1.0),
    "unit_gaussian": (nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1)), UnitGaussian(), 2.0),
    "convolution": (
        nn.Sequential(nn.Conv2d(1, 2, 2), nn.Tanh(), nn.Flatten(), nn.Linear(8, 2)),
        Categorical(2),
        1.0,
    ),
}
"""Network, output distribution, and how many times the Fisher matrix the peer's loss has as its curvature."""


def symmetric(upper: list[float]) -> Tensor:
    """The matrix with this upper triangle, given row by row."""
    d = (np.sqrt(8 * len(upper) + 1) - 1) / 2
    dense = torch.zeros(int(d), int(d), dtype=torch.float64)
    rows, columns = torch.triu_indices(*dense.shape)
    dense[rows, columns] = dense[columns, rows] = torch.tensor(upper, dtype=torch.float64)
    return dense


@pytest.mark.parametrize("case", NETWORKS)
@pytest.mark.parametrize(("name", "theirs"), [("exact", "ggn"), ("kfac", "kfac"), ("ekfac", "ekfac")])
def test_the_metric_equals_the_peer_s_matrix(case: str, name: str, theirs: str) -> None:
    network, distribution, scale = NETWORKS[case]
    oracle: dict[str, Any] = ORACLE["cases"][case]
    theta, inputs = (torch.tensor(oracle[key], dtype=torch.float64) for key in ("theta", "inputs"))
    model = Model(network, theta, inputs, distribution, actions=torch.zeros(len(inputs)))
    config = SampledConfig(name, "cg", iterations=1, tolerance=0.0)
    metric = load_fisher(name).at(model, config, np.random.default_rng(0))
    assert_close(scale * metric.dense(), symmetric(oracle[theirs]))


def test_the_oracle_has_a_network_of_ours_for_every_case() -> None:
    assert set(ORACLE["cases"]) == set(NETWORKS)
