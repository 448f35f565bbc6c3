import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from analysis.aggregate import over_all_tasks
from analysis.cells import load_suite
from analysis.curves import Floats
from analysis.figures import X_AXES, geometry, learning_curves, save_figure
from analysis.figures.geometry import in_parts, own_delta
from analysis.groups import Results, gather
from analysis.mujoco_scores import scales
from analysis.provenance import stamp
from analysis.statistics import iqm
from analysis.style import algorithm_name, environment_name, labelled, line_styles, ordered
from analysis.tables.outcomes import aggregates
from tests.analysis.synthetic import write_suite
from tests.analysis.test_suite_tables import rewrite, run, set_frame_skip


def results(tmp_path: Path, seeds: int, variants: tuple[str, ...] = ("adam_pg", "trpo")) -> Results:
    suite_dir = write_suite(tmp_path, ["hopper"], list(variants), seeds, total_steps=60_000)
    return gather(load_suite(suite_dir), 100)


def test_line_is_the_iqm_in_a_band_from_three_runs_on(tmp_path: Path) -> None:
    suite = results(tmp_path, seeds=5)
    styles = line_styles(suite.suite.variants)
    figure = learning_curves(suite.groups, styles, 60_000, {})
    [panel] = figure.axes
    assert len(panel.lines) == 2
    assert len(panel.collections) == 2
    scores = suite.groups[1].scores.values
    np.testing.assert_allclose(ydata(panel.lines[1]), iqm(scores, axis=0))
    assert xdata(panel.lines[1])[-1] == 59_392  # the end of the run
    assert "IQM over 5 runs; band: pointwise 95 % percentile bootstrap interval" in notes(figure)


def test_with_two_runs_each_is_drawn_and_the_figure_says_so(tmp_path: Path) -> None:
    suite = results(tmp_path, seeds=2)
    figure = learning_curves(suite.groups, line_styles(suite.suite.variants), 60_000, {})
    [panel] = figure.axes
    assert len(panel.lines) == 2 * (1 + 2)
    assert len(panel.collections) == 0
    assert "thin: each run; thick: mean over 2 runs" in notes(figure)


def test_rejected_updates_are_no_zeros_and_a_nan_is_a_gap(tmp_path: Path) -> None:
    suite_dir = write_suite(tmp_path, ["hopper"], ["trpo"], 1, total_steps=60_000)
    run_dir = run(suite_dir, "hopper", "trpo", 0)
    updates = 29
    rewrite(run_dir, "outcome", lambda values: ["rejected" if i == 3 else "stepped" for i in range(updates)])
    rewrite(run_dir, "kl", lambda values: [0.0 if i == 3 else np.nan if i == 12 else 0.01 for i in range(updates)])
    suite = gather(load_suite(suite_dir), 100)
    figure = geometry(suite.groups, line_styles(["trpo"]), 60_000)
    kl = figure.axes[1]
    assert kl.get_yscale() == "log"
    drawn = ydata(kl.lines[0])
    np.testing.assert_allclose(drawn, [0.01, 0.01, np.nan, 0.01, 0.01, 0.01])


def test_a_collapsed_run_does_not_flatten_the_others_and_the_figure_says_what_it_cut(tmp_path: Path) -> None:
    suite_dir = write_suite(tmp_path, ["hopper"], ["npg", "trpo"], 1, total_steps=60_000)
    styles, said = line_styles(["npg", "trpo"]), "what lies far below the lines is cut off"
    whole = geometry(gather(load_suite(suite_dir), 100).groups, styles, 60_000)
    rewrite(run(suite_dir, "hopper", "trpo", 0), "kl", lambda values: [value * 1e-40 for value in values])
    collapsed = geometry(gather(load_suite(suite_dir), 100).groups, styles, 60_000)
    low, high = collapsed.axes[1].get_ylim()
    assert 10 < high / low < 2_000
    assert low < 0.019 < high
    assert said in notes(collapsed)
    assert said not in notes(whole)


def test_a_line_ends_with_the_first_run_that_has_no_value_and_the_figure_says_so(tmp_path: Path) -> None:
    suite_dir = write_suite(tmp_path, ["hopper"], ["npg", "trpo"], 5, total_steps=60_000)
    styles, said = line_styles(["npg", "trpo"]), "TRPO: no line where one of the runs has no value"
    whole = geometry(gather(load_suite(suite_dir), 100).groups, styles, 60_000)
    rewrite(run(suite_dir, "hopper", "trpo", 1), "kl", lambda values: [*values[:15], *[None] * (len(values) - 15)])
    ended = geometry(gather(load_suite(suite_dir), 100).groups, styles, 60_000)
    npg, trpo = (ydata(line) for line in ended.axes[1].lines[:2])
    assert np.isfinite(npg).all()
    assert np.isfinite(trpo[:3]).all()
    assert np.isnan(trpo[-2:]).all()
    assert said in notes(ended)
    assert "no line" not in notes(whole)


def test_what_no_run_has_reached_is_not_in_the_legend_and_its_panel_says_so(tmp_path: Path) -> None:
    suite_dir = write_suite(tmp_path, ["hopper", "swimmer"], ["npg", "trpo"], 1, total_steps=60_000)
    for env, variant in (("hopper", "trpo"), ("swimmer", "npg"), ("swimmer", "trpo")):
        shutil.rmtree(run(suite_dir, env, variant, 0))
    suite, styles = gather(load_suite(suite_dir), 100), line_styles(["npg", "trpo"])
    curves = learning_curves(suite.groups, styles, 60_000, {})
    empty = geometry([group for group in suite.groups if group.env == "swimmer"], styles, 60_000)
    assert [text.get_text() for text in curves.legends[0].get_texts()] == ["NPG"]
    assert [text.get_text() for text in empty.legends[0].get_texts()] == []
    said = [[text.get_text() for text in panel.texts] for panel in curves.axes]
    assert said == [[], ["nothing to draw yet"]]
    assert all("nothing to draw yet" in [text.get_text() for text in panel.texts] for panel in empty.axes)


def test_the_alignment_error_names_its_damping_and_what_is_unsolved(tmp_path: Path) -> None:
    suite_dir = write_suite(tmp_path, ["hopper"], ["npg", "trpo"], 1, total_steps=60_000)
    styles = line_styles(["npg", "trpo"])
    solved = geometry(gather(load_suite(suite_dir), 100).groups, styles, 60_000)
    assert solved.axes[2].get_ylabel() == r"$e$ at $\rho = 0.1$"
    assert "not solved" not in notes(solved)
    rewrite(run(suite_dir, "hopper", "trpo", 0), "alignment_outcome", lambda values: ["capped", *values[1:]])
    figure = geometry(gather(load_suite(suite_dir), 100).groups, styles, 60_000)
    assert "$e$ of TRPO: not every natural gradient is solved to the tolerance" in notes(figure)


@pytest.mark.parametrize("delta", [1e-3, 0.02, 1.0])
def test_the_own_delta_is_drawn_inside_the_panel_and_no_other(tmp_path: Path, delta: float) -> None:
    suite_dir = write_suite(tmp_path, ["hopper"], ["adam_pg", "trpo"], 1, total_steps=60_000)
    manifest = run(suite_dir, "hopper", "trpo", 0) / "manifest.json"
    content = json.loads(manifest.read_text())
    content["identity"]["parts"]["config"]["algorithm.delta"] = delta
    manifest.write_text(json.dumps(content))
    suite = gather(load_suite(suite_dir), 100)
    assert [own_delta(group) for group in suite.groups] == [None, delta]
    figure = geometry(suite.groups, line_styles(suite.suite.variants), 60_000)
    low, high = figure.axes[1].get_ylim()
    assert low < delta < high
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["Adam-PG", "TRPO", r"own $\delta$"]


def test_the_alignment_error_is_points_without_the_first_update(tmp_path: Path) -> None:
    suite = results(tmp_path, seeds=3)
    curve = suite.groups[0].kpi("alignment_error")
    steps, values = in_parts(curve)
    assert steps.tolist() == curve.steps[1:].tolist()
    np.testing.assert_array_equal(values, curve.values[:, 1:])
    figure = geometry(suite.groups, line_styles(suite.suite.variants), 60_000)
    assert {line.get_linestyle() for line in figure.axes[2].lines} == {"None"}
    assert len(figure.axes[2].collections) == 2  # the intervals


def test_the_small_print_has_three_lines_and_the_picture_the_whole_caption(tmp_path: Path) -> None:
    suite = results(tmp_path, seeds=2)
    figure = geometry(suite.groups, line_styles(suite.suite.variants), 60_000)
    assert len(figure.legends[-1].get_title().get_text().splitlines()) <= 3
    save_figure(figure, tmp_path / "x", "source")
    assert "bars: range over runs" in Image.open(tmp_path / "x.png").info["Description"]


@pytest.mark.parametrize("x", X_AXES)
def test_learning_curves_over_steps_updates_and_time(tmp_path: Path, x: str) -> None:
    suite = results(tmp_path, seeds=2)
    figure = learning_curves(suite.groups, line_styles(suite.suite.variants), 60_000, {}, x)
    lines = figure.axes[0].lines
    assert len(lines) == (0 if x == "time" else 6)  # these runs did not record their processor time
    if x == "updates":
        assert xdata(lines[0])[-1] == 29


def test_all_tasks_share_a_panel_where_they_have_a_scale(tmp_path: Path) -> None:
    suite_dir = write_suite(tmp_path, ["hopper", "halfcheetah"], ["adam_pg", "npg"], 5, total_steps=60_000)
    suite = gather(load_suite(suite_dir), 100)
    over_all = over_all_tasks(suite)
    assert [one.variant for one in over_all] == ["adam_pg", "npg"]
    runs = [scales()["Hopper-v5"].normalise(suite.groups[0].scores.values[:, -1]),
            scales()["HalfCheetah-v5"].normalise(suite.groups[2].scores.values[:, -1])]  # fmt: skip
    np.testing.assert_allclose(over_all[0].curve[-1], iqm(np.concatenate(runs)))
    area = over_all[0].area
    assert area.is_interval
    assert area.low <= area.value <= area.high
    tabulated = {record["variant"]: record for record in aggregates(suite).records}
    assert [tabulated["adam_pg"][name] for name in ("area", "area_low", "area_high")] == [
        area.value, area.low, area.high]  # fmt: skip
    figure = learning_curves(suite.groups, line_styles(suite.suite.variants), 60_000, {}, aggregates=over_all)
    assert figure.axes[-1].get_title() == "All 2 tasks"


def test_a_label_names_a_variant_and_one_of_two_is_followed_by_the_name() -> None:
    with labelled({"own": "Mine <b>", "ppo_b": "PPO"}):
        assert [algorithm_name(v) for v in ("own", "ppo", "ppo_b", "own (external)", "x")] == [
            "Mine <b>", "PPO (ppo)", "PPO (ppo_b)", "Mine <b> (external)", "x"]  # fmt: skip
    assert algorithm_name("own") == "own"


def test_bins_without_a_measurement_do_not_break_the_line(tmp_path: Path) -> None:
    suite = results(tmp_path, seeds=1)  # measured at steps 2048, 22528, 43008: in bins 1, 3 and 5
    figure = geometry(suite.groups, line_styles(suite.suite.variants), 60_000)
    trace = figure.axes[0].lines[0]
    assert xdata(trace).tolist() == [10_000, 30_000, 50_000]
    assert np.isfinite(ydata(trace)).all()


def test_a_run_past_its_budget_is_drawn_to_its_end(tmp_path: Path) -> None:
    suite = results(tmp_path, seeds=1)  # the warm-up of the normaliser is not part of the budget
    figure = learning_curves(suite.groups, line_styles(suite.suite.variants), 59_000, {})
    assert figure.axes[0].get_xlim() == (0, 59_392)


def test_an_axis_of_steps_says_how_many_frames_one_is(tmp_path: Path) -> None:
    """Of a column of panels the lowest has the label, unless another one's steps have other frames."""
    envs = ["atari_pong", "hopper", "atari_breakout", "ant", "reacher", "atari_qbert", "atari_seaquest"]
    suite_dir = write_suite(tmp_path, envs, ["adam_pg"], 1, total_steps=60_000)
    set_frame_skip(run(suite_dir, "atari_breakout", "adam_pg", 0), 2)
    suite = gather(load_suite(suite_dir), 100)
    figure = learning_curves(suite.groups, line_styles(["adam_pg"]), 60_000, {})
    steps = "environment steps (thousands)"
    frames = f"{steps}\n1 step = 4 frames"
    assert {panel.get_title(): panel.get_xlabel() for panel in figure.axes} == {
        "Pong": frames,
        "Hopper": "",
        "Breakout": f"{steps}\n1 step = 2 frames",
        "Ant": steps,
        "Reacher": steps,
        "Qbert": frames,
        "Seaquest": frames,
    }
    pong = geometry(suite.groups[:1], line_styles(["adam_pg"]), 60_000)
    assert {panel.get_xlabel() for panel in pong.axes} == {frames}


def test_equal_data_give_equal_files(tmp_path: Path) -> None:
    suite = results(tmp_path, seeds=3)
    for name in ("one", "two"):
        figure = geometry(suite.groups, line_styles(suite.suite.variants), 60_000)
        save_figure(figure, tmp_path / name, "v1, cells abc")
    for kind in (".png", ".pdf"):
        assert (tmp_path / "one").with_suffix(kind).read_bytes() == (tmp_path / "two").with_suffix(kind).read_bytes()
    pdf = (tmp_path / "one.pdf").read_bytes()
    assert b"CreationDate" not in pdf
    assert b"/Subject (v1, cells abc)" in pdf
    assert Image.open(tmp_path / "one.png").info["Source"] == "v1, cells abc"


def test_a_figure_says_which_cells_it_shows(tmp_path: Path) -> None:
    suite = results(tmp_path, seeds=1)
    styles = line_styles(suite.suite.variants)
    for figure in (learning_curves(suite.groups, styles, 60_000, {}), geometry(suite.groups, styles, 60_000)):
        assert notes(figure).splitlines()[-1] == suite.source
    one = geometry(suite.groups[:1], styles, 60_000)
    assert notes(one).splitlines()[-1] == stamp(suite.groups[0].cells) != suite.source


def test_a_name_with_a_dot_keeps_it(tmp_path: Path) -> None:
    suite = results(tmp_path, seeds=1)
    save_figure(learning_curves(suite.groups, line_styles(suite.suite.variants), 60_000, {}), tmp_path / "a_v1.5", "")
    assert (tmp_path / "a_v1.5.png").is_file()


def test_a_variant_has_one_colour_whoever_else_is_there() -> None:
    alone, crowd = line_styles(["trpo"]), line_styles(["zeta", "ppo", "trpo", "alpha", "acktr", "npg", "adam_pg"])
    assert alone["trpo"] == crowd["trpo"]
    assert list(crowd) == ["adam_pg", "npg", "trpo", "ppo", "acktr", "alpha", "zeta"]
    assert crowd["npg"]["linestyle"] != crowd["trpo"]["linestyle"]  # they often coincide


@pytest.mark.parametrize("variants", [13, 20, 29])
def test_many_variants_stay_distinct(variants: int) -> None:
    styles = line_styles(["adam_pg", "npg", "trpo", "ppo", "acktr", *(f"v{i:02}" for i in range(variants - 5))])
    assert len({(to_hex(s["color"]), str(s["linestyle"])) for s in styles.values()}) == variants


def test_names() -> None:
    assert environment_name("halfcheetah") == "HalfCheetah"
    assert environment_name("atari_space_invaders") == "Space Invaders"
    assert environment_name("cartpole") == "cartpole"
    assert algorithm_name("adam_pg") == "Adam-PG"
    assert ordered(["npg_fixed", "ppo", "adam_pg"]) == ["adam_pg", "ppo", "npg_fixed"]


def notes(figure: Figure) -> str:
    """The caption, and the small print, whose last line is the source."""
    return "\n".join([str(figure.get_label()), *(legend.get_title().get_text() for legend in figure.legends)])


def xdata(line: Line2D) -> Floats:
    return np.asarray(line.get_xdata(), dtype=np.float64)


def ydata(line: Line2D) -> Floats:
    return np.asarray(line.get_ydata(), dtype=np.float64)
