"""Claims on synthetic runs that come out supported, contradicted, undecided and not measured."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis.cells import load_suite
from analysis.claims import CLAIMS, CONTRADICTED, NOT_MEASURED, SUPPORTED, UNDECIDED, Claim, Measured, Rule, breadth
from analysis.figures import claims as figure
from analysis.groups import Results, gather
from analysis.tables.claims import claims
from tests.analysis.synthetic import write_suite
from tests.analysis.test_suite_tables import rewrite, run

STEPS = np.arange(1, 41) * 5_000


def suite(
    root: Path,
    speeds: Mapping[str, float],
    seeds: int = 5,
    spread: float = 0.05,
    heights: Mapping[str, float] | None = None,
) -> Results:
    """Variants on two tasks whose scores rise at these speeds, to these shares of 2,000, run by run a little apart."""
    suite_dir = write_suite(root, ["hopper", "halfcheetah"], list(speeds), seeds, total_steps=200_000, batch=5_000)
    for env in ("hopper", "halfcheetah"):
        for variant, speed in speeds.items():
            rng = np.random.default_rng(len(variant))
            for seed in range(seeds):
                height = 2000 * (heights or {}).get(variant, 1.0) * (1 + spread * rng.standard_normal())
                own = speed * (1 + spread * rng.standard_normal())
                score = height * (1 - np.exp(-own * STEPS / 50_000))
                rewrite(run(suite_dir, env, variant, seed), "episode_return", lambda _, score=score: score.tolist())
    return gather(load_suite(suite_dir), 400)


def verdicts(results: Results) -> dict[str, str]:
    return {str(record["number"]): str(record["claim_verdict"]) for record in claims(results).records}


@pytest.mark.parametrize(
    ("sense", "bound", "low", "high", "expected"),
    [
        (">=", 0.2, 0.2, 0.5, SUPPORTED),
        (">=", 0.2, -0.3, 0.19, CONTRADICTED),
        (">=", 0.2, -0.3, 0.2, UNDECIDED),
        (">", 0.0, 0.0, 1.0, UNDECIDED),
        (">", 0.0, -1.0, 0.0, CONTRADICTED),
        ("<=", 1.25, 1.0, 1.25, SUPPORTED),
        ("<", 1.0, 1.0, 2.0, CONTRADICTED),
        ("<", 1.0, 0.5, 1.0, UNDECIDED),
        ("<", 1.0, -np.inf, np.inf, UNDECIDED),
        (">=", 0.2, np.nan, np.nan, UNDECIDED),
    ],
)
def test_a_rule_wants_the_whole_interval(sense: str, bound: float, low: float, high: float, expected: str) -> None:
    assert Rule(sense, bound).verdict(low, high) == expected


def test_all_parts_have_to_be_supported_and_one_decides_against() -> None:
    claim = Claim("0", "a claim", "nobody", "a measure", Rule(">", 0), lambda _: [], "nothing")
    good, bad, open_, few = (
        Measured("x", 1.0, low, high, ("hopper",)) for low, high in ((0.5, 2), (-2, -1), (-1, 1), (None, None))
    )
    assert claim.verdict([]) == NOT_MEASURED
    assert claim.verdict([good, good]) == SUPPORTED
    assert claim.verdict([good, open_]) == UNDECIDED
    assert claim.verdict([good, few]) == UNDECIDED
    assert claim.verdict([good, open_, bad]) == CONTRADICTED


def test_much_faster_natural_gradients_support_the_claim_and_slower_ones_contradict_it(tmp_path: Path) -> None:
    faster = {"adam_pg": 0.5, "npg": 1.5, "trpo": 1.6, "ppo": 1.6}
    found = verdicts(suite(tmp_path / "faster", faster))
    assert (found["1a"], found["7a"]) == (SUPPORTED, SUPPORTED)
    assert found["12"] == NOT_MEASURED  # which needs the factorial
    slower = {"adam_pg": 1.5, "npg": 0.5, "trpo": 0.5, "ppo": 0.1}
    found = verdicts(suite(tmp_path / "slower", slower))
    assert (found["1a"], found["1b"], found["7a"]) == (CONTRADICTED, CONTRADICTED, CONTRADICTED)


def test_a_censored_method_is_contradicted_by_its_bound(tmp_path: Path) -> None:
    """NPG never reaches the threshold: N is at least the budget, twice Adam-PG's."""
    results = suite(tmp_path, {"adam_pg": 1.5, "npg": 1.5}, heights={"npg": 0.3})
    [row] = [record for record in claims(results).records if record["number"] == "1a"]
    assert row["low"] == -np.inf
    assert row["high"] < 0
    assert row["verdict"] == CONTRADICTED


def test_runs_that_differ_widely_leave_it_undecided_and_few_runs_do_too(tmp_path: Path) -> None:
    results = suite(tmp_path / "wide", {"adam_pg": 1.0, "npg": 1.25}, spread=0.4)
    assert verdicts(results)["1a"] == UNDECIDED
    few = suite(tmp_path / "few", {"adam_pg": 0.5, "npg": 1.5}, seeds=3)
    [row] = [record for record in claims(few).records if record["number"] == "1a"]
    assert (row["low"], row["high"], row["verdict"]) == (None, None, UNDECIDED)
    assert row["value"] > 0.2
    assert figure(few) is None


def test_the_control_of_kl_is_that_of_the_runs(tmp_path: Path) -> None:
    """Synthetic KL is 0.019 for NPG and 0.011 for PPO: more of NPG's lies above 0.02."""
    results = suite(tmp_path, {"ppo": 1.0, "npg": 1.0})
    rows = {record["part"]: record for record in claims(results).records if record["number"] == "6a"}
    assert rows["NPG, share above δ"]["verdict"] == CONTRADICTED
    assert set(rows) == {"NPG, share above δ", "NPG, variation"}


def test_the_factorial_decides_on_the_direction(tmp_path: Path) -> None:
    results = suite(tmp_path, {"exact_kl": 1.5, "adam_kl": 0.5}, seeds=5)
    assert verdicts(results)["12"] == SUPPORTED
    drawn = figure(results)
    assert drawn is not None
    assert [label.get_text() for label in drawn.axes[0].get_yticklabels()] == ["12 natural (> 0)"]


def test_sweeps_decide_on_step_sizes_and_batches(tmp_path: Path) -> None:
    """NPG learns as well at every step size, Adam-PG at its own alone; NPG's gain falls as the batch grows."""
    speeds: dict[str, float] = {"npg": 1.5, "adam_pg": 1.5}
    speeds |= {f"npg_step{factor}": 1.5 for factor in ("0.1", "0.3", "3", "10")}
    speeds |= {f"adam_pg_step{factor}": 0.2 for factor in ("0.1", "0.3", "3", "10")}
    found = verdicts(suite(tmp_path / "steps", speeds))
    assert (found["8"], found["9b"]) == (SUPPORTED, NOT_MEASURED)
    speeds = {"npg": 0.8, "adam_pg": 0.8}
    speeds |= {"npg_batch0.25": 2.0, "npg_batch0.5": 1.4, "npg_batch2": 0.6}
    speeds |= {f"adam_pg_batch{factor}": 0.8 for factor in ("0.25", "0.5", "2")}
    found = verdicts(suite(tmp_path / "batches", speeds))
    assert (found["9b"], found["9c"]) == (SUPPORTED, CONTRADICTED)


def test_breadth_is_that_around_the_best_alone() -> None:
    areas = np.array([[0.9, 0.1, 1.0, 0.85, 0.2], [1.0, 1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0, 1.0]])
    np.testing.assert_allclose(breadth(areas), [np.log10(3), 2.0, 0.0])


def test_every_claim_has_a_row_whatever_a_suite_has(tmp_path: Path) -> None:
    results = gather(load_suite(write_suite(tmp_path, ["hopper"], ["acktr"], 1, total_steps=20_480)), 50)
    table = claims(results)
    assert [record["number"] for record in table.records] == [claim.number for claim in CLAIMS]
    assert {record["claim_verdict"] for record in table.records} == {NOT_MEASURED}
    assert figure(results) is None
    assert len(table.header) <= 8
    assert all(ord(character) < 128 for character in table.latex())
    rows: list[dict[str, Any]] = list(csv.DictReader(table.csv().splitlines()))
    assert len(rows) == len(CLAIMS)
