from pathlib import Path

from analysis.cells import load_suite
from analysis.figures import literature as literature_figure
from analysis.groups import Results, gather
from analysis.literature import beside, published_scores
from analysis.style import line_styles
from analysis.tables.literature import literature
from tests.analysis.synthetic import write_suite


def results(tmp_path: Path, total_steps: int) -> Results:
    suite_dir = write_suite(tmp_path, ["hopper"], ["adam_pg", "ppo"], seeds=2, total_steps=total_steps)
    return gather(load_suite(suite_dir), 20)


def test_comparable_is_the_same_algorithm_version_budget_and_statistic(tmp_path: Path) -> None:
    rows = {(r["variant"], r["published_algorithm"], r["source"].split()[0], r["published_steps"]): r
            for r in literature(results(tmp_path, 1_000_000)).records}  # fmt: skip
    assert rows["ppo", "ppo", "agi-brain/xuance-benchmarks", 1_000_000]["comparable"]
    assert rows["adam_pg", "a2c", "agi-brain/xuance-benchmarks", 1_000_000]["differs"] == "algorithm"
    assert rows["ppo", "ppo", "SLM-Lab", 4_000_000]["differs"] == "budget"
    assert rows["ppo", "ppo", "openai/baselines", 1_000_000]["differs"] == "version"
    assert rows["ppo", "ppo", "Tianshou", 1_000_000]["differs"] == "version statistic"
    assert sum(row["comparable"] for row in rows.values()) == 1


def test_nothing_is_comparable_at_another_budget_and_the_table_says_why(tmp_path: Path) -> None:
    suite = results(tmp_path, 60_000)
    table = literature(suite)
    assert not any(row["comparable"] for row in table.records)
    assert all(row[3].endswith("*") and row[6] != "–" for row in table.rows)
    assert len(table.header) <= 8
    assert all(ord(character) < 128 or character in "±" for character in table.latex())
    figure = literature_figure(beside(suite), line_styles(["adam_pg", "ppo"]))
    said = [text.get_text() for text in figure.legends[0].get_texts()]
    assert said == ["here, over runs", "published, not comparable"]


def test_every_published_score_has_a_source() -> None:
    assert all(row.source and row.statistic and row.steps > 0 for row in published_scores())
