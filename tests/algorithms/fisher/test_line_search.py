"""Searches along a direction on functions whose answers are known."""

import math

import pytest

from algorithms.fisher.line_search import backtrack, scale_to_divergence


def test_the_full_step_is_taken_when_it_passes() -> None:
    search = backtrack(lambda s: (s, 0.01 * s**2), delta=0.01, ratio=0.8, max_backtracks=10)
    assert (search.accepted, search.scale, search.backtracks) == (True, 1.0, 0)


def test_backtracks_to_the_first_scale_inside_the_radius() -> None:
    search = backtrack(lambda s: (s, s**2), delta=0.5, ratio=0.8, max_backtracks=10)
    assert search.backtracks == math.ceil(math.log(math.sqrt(0.5)) / math.log(0.8))
    assert search.kl == pytest.approx(search.scale**2)


def test_a_gain_is_required_besides_the_radius() -> None:
    search = backtrack(lambda s: (0.3 - s, 0.0), delta=1.0, ratio=0.8, max_backtracks=10)
    assert search.accepted
    assert search.scale < 0.3


@pytest.mark.parametrize("gain", [0.0, -1.0, math.nan])
def test_no_gain_is_rejected_after_all_trials(gain: float) -> None:
    search = backtrack(lambda s: (gain, 0.0), delta=1.0, ratio=0.8, max_backtracks=10)
    assert (search.accepted, search.backtracks) == (False, 10)


def test_divergence_that_is_not_finite_fails_a_trial() -> None:
    search = backtrack(lambda s: (1.0, math.nan if s > 0.5 else 0.0), delta=1.0, ratio=0.8, max_backtracks=10)
    assert search.accepted
    assert search.scale <= 0.5


@pytest.mark.parametrize("start", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("power", [2.0, 2.7])
def test_bisection_reaches_the_target_from_below(start: float, power: float) -> None:
    scale = scale_to_divergence(lambda s: 3.0 * s**power, 0.02, start)
    assert 0.999 * 0.02 <= 3.0 * scale**power <= 0.02


def test_bisection_stays_below_a_divergence_that_jumps() -> None:
    scale = scale_to_divergence(lambda s: 0.001 if s < 0.7 else math.inf, 0.02, 1.0)
    assert scale == pytest.approx(0.7, rel=1e-3)
    assert scale < 0.7
