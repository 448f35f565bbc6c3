"""The simulation of intervals, in small."""

import numpy as np
import pytest

from analysis.statistics import iqm
from benchmarks import coverage
from benchmarks.coverage import DISTRIBUTIONS, intervals, learner, standard_errors, table_of


def test_every_method_gives_an_interval_and_the_expanded_one_is_the_wider() -> None:
    for draw in DISTRIBUTIONS:
        rng = np.random.default_rng(0)
        found = intervals(table_of(draw, rng, 2, 5), rng)
        assert all(low < high for low, high in found.values())
        assert found["expanded"][0] <= found["percentile"][0] <= found["percentile"][1] <= found["expanded"][1]


def test_the_standard_error_is_that_of_repeated_samples() -> None:
    samples = np.random.default_rng(0).normal(size=(4_000, 40))
    assert standard_errors(samples, 1).mean() == pytest.approx(iqm(samples).std(), rel=0.05)


def test_learners_learn() -> None:
    one = learner(np.random.default_rng(0), 5)
    assert one.curve[-1] > 5 * one.curve[0]
    assert one.finals.shape == (coverage.RESAMPLES,)


def test_tables_have_a_row_for_every_design(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(coverage, "DESIGNS", ((1, 5), (2, 3)))
    coverage.coverage(2)
    coverage.false_positives(1)
    assert capsys.readouterr().out.count("\n") == 2 + 2 * 3 + 2 + 3
