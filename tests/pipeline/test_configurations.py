"""Configurations drawn for a suite: the same everywhere, equally many, and refused where they cannot be."""

from typing import Any

import pytest

from pipeline.search import SearchError, configurations

SPACE = {"algorithm.batch_size": [1, 2, 4], "flag": [True, None], "step": [["a=1", "b=2"], ["a=3"]]}
SEARCH = {"configurations": 6, "draws": 0, "spaces": {"npg": SPACE, "ppo": {"algorithm.clip": list(range(9))}}}


def drawn(search: Any = SEARCH) -> dict[str, list[str]]:
    return configurations(search, {"tuning": SEARCH, "final": {"of": "tuning"}}.get)


def test_every_algorithm_has_its_defaults_and_as_many_draws_which_differ() -> None:
    found = drawn()
    assert list(found) == [f"{algorithm}-{i}" for algorithm in ("npg", "ppo") for i in range(6)]
    assert found["npg-0"] == ["algorithm=npg"]
    assert len({tuple(overrides) for overrides in found.values()}) == 12
    for name, overrides in found.items():
        if name.startswith("npg") and name != "npg-0":
            assert overrides[1] in {f"algorithm.batch_size={size}" for size in (1, 2, 4)}
            assert overrides[2] in {"flag=true", "flag=null"}
            assert overrides[3:] in (["a=1", "b=2"], ["a=3"])


def test_draws_are_the_same_for_ever_and_another_seed_gives_others() -> None:
    """Published names stand for what was drawn: these must never change."""
    assert drawn()["ppo-1"] == ["algorithm=ppo", "algorithm.clip=1"]
    assert drawn() == drawn()
    assert drawn(SEARCH | {"draws": 1}) != drawn()


def test_all_of_a_space_may_name_the_algorithm_itself() -> None:
    pair = {"pair": [["algorithm=npg", "step_rule=kl"]], "algorithm.delta": [0.1, 0.2], "x": [1, 2]}
    found = drawn({"configurations": "all", "spaces": {"gradient_kl": pair}})
    assert list(found) == [f"gradient_kl-{i}" for i in range(4)]
    assert found["gradient_kl-1"] == ["algorithm=npg", "step_rule=kl", "algorithm.delta=0.1", "x=2"]


def test_some_of_another_search_keep_their_names() -> None:
    found = drawn({"of": "tuning", "configurations": {"npg": [4, 0]}})
    assert found == {"npg-4": drawn()["npg-4"], "npg-0": ["algorithm=npg"]}


@pytest.mark.parametrize(
    ("search", "said"),
    [
        ([], "search: [] is no mapping"),
        ({"spaces": {}}, "search: spaces: must be a mapping from algorithms"),
        (SEARCH | {"configurations": True}, "search: configurations: True is no integer of at least 1"),
        (SEARCH | {"draws": -1}, "search: draws: -1 is no integer of at least 0"),
        (SEARCH | {"seeds": 2}, "search: has the keys configurations, draws, spaces, seeds; it needs"),
        (SEARCH | {"configurations": 14}, "search: spaces: npg: has 12 configurations, too few for 13 draws"),
        (SEARCH | {"spaces": {"npg": {"x": 3}}}, "search: spaces: npg: must be a mapping from settings to lists"),
        ({"of": "other", "configurations": {}}, "search: of: suite other draws no configurations"),
        ({"of": "final", "configurations": {}}, "search: of: suite final draws no configurations"),
        ({"of": "tuning", "configurations": {"npg": [9]}}, "search: configurations: tuning has no npg-9; there are"),
        ({"of": "tuning", "configurations": {"npg": [1, 1]}}, "search: configurations: npg-1 is listed twice"),
        ({"of": "tuning", "configurations": 4}, "search: configurations: must be a mapping such as"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_refused_in_one_line(search: Any, said: str) -> None:
    with pytest.raises(SearchError) as error:
        drawn(search)
    assert str(error.value).startswith(said)
    assert "\n" not in str(error.value)
