import numpy as np
import pytest

from analysis.curves import Column, Curve, Floats, bridged, grid_points, kpi_curve, score_curve

NAN = float("nan")


def column(values: list[float | None]) -> Column:
    measured = np.array([value is not None for value in values])
    return Column(np.array([NAN if value is None else value for value in values]), measured)


def steps(*values: float) -> Floats:
    return np.array(values, dtype=np.float64)


@pytest.mark.parametrize(
    ("total_steps", "expected"),
    [
        (4_000, [4_000]),
        (10_000, [10_000]),
        (25_000, [10_000, 20_000, 25_000]),
        (30_000, [10_000, 20_000, 30_000]),
    ],
)
def test_grid(total_steps: int, expected: list[int]) -> None:
    assert grid_points(total_steps).tolist() == expected


def test_score_is_the_last_row_at_or_before_the_point() -> None:
    score = column([None, 1.0, 2.0, 3.0, 4.0])
    curve = score_curve(steps(4_000, 8_000, 10_000, 14_000, 24_000), score, grid_points(25_000))
    assert curve.steps.tolist() == [10_000, 20_000, 24_000]  # the last point is the end of the run
    assert curve.values.tolist() == [2.0, 3.0, 4.0]
    assert curve.measurements.tolist() == [1, 1, 1]


def test_score_is_null_before_the_first_row_and_the_first_episode() -> None:
    curve = score_curve(steps(15_000, 25_000), column([None, 7.0]), grid_points(40_000))
    np.testing.assert_array_equal(curve.values, [NAN, NAN, 7.0, NAN])
    assert curve.measurements.tolist() == [0, 0, 1, 0]
    assert curve.steps.tolist() == [10_000, 20_000, 25_000, 40_000]


def test_end_of_an_unfinished_run_is_its_last_point() -> None:
    curve = score_curve(steps(9_000, 18_000), column([1.0, 2.0]), grid_points(100_000))
    assert curve.steps[:2].tolist() == [10_000, 18_000]
    assert curve.values[:2].tolist() == [1.0, 2.0]
    assert curve.measurements.tolist() == [1, 1] + [0] * 8


def test_kpi_is_the_mean_of_the_bin() -> None:
    kpi = column([1.0, 3.0, 10.0, None, 5.0])
    curve = kpi_curve(steps(5_000, 10_000, 10_001, 20_000, 24_000), kpi, grid_points(25_000))
    assert curve.values.tolist() == [2.0, 10.0, 5.0]  # a bin is (previous point, point]
    assert curve.measurements.tolist() == [2, 1, 1]


def test_null_and_nan_differ_in_a_bin() -> None:
    kpi = column([1.0, NAN, None, None, 2.0])
    curve = kpi_curve(steps(2_000, 8_000, 12_000, 18_000, 30_000), kpi, grid_points(30_000))
    np.testing.assert_array_equal(curve.values, [NAN, NAN, 2.0])
    assert curve.measurements.tolist() == [2, 0, 1]  # measured NaN, not measured, measured


def test_counts_of_a_column() -> None:
    kpi = column([1.0, NAN, None, NAN])
    assert kpi.nan == 2
    assert kpi.usable.tolist() == [1.0]
    inside = kpi.where(np.array([False, True, True, True]))
    assert inside.measured.tolist() == [False, True, False, True]
    assert inside.nan == 2


def test_bridging_fills_gaps_but_no_ends_and_no_nans() -> None:
    values = np.array([NAN, 1.0, NAN, 3.0, NAN, 5.0, NAN])
    measurements = np.array([0, 2, 0, 1, 1, 1, 0])
    curve = Curve(steps(1, 2, 3, 4, 5, 6, 7), values, measurements)
    np.testing.assert_array_equal(bridged(curve), [NAN, 1.0, 2.0, 3.0, NAN, 5.0, NAN])
