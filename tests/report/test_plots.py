"""Every plot is made where there is something to show, and shows it."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from perceptkit.model.plan import Plan
from perceptkit.report import plan_pictures
from perceptkit.report.plots import PLOTS, smoothed, stage_spans, write_plots
from perceptkit.report.run_folder import read_run
from perceptkit.report.theme import DARK, LIGHT, THEMES, style
from tests.report.fake_routing import make_routed_run
from tests.report.fake_run import TASKS

# block 0 is shared, 1 is a's own, 2 is kept by none, 3 is b's to route
PLAN = Plan(
    ("a", "b"),
    ("layer1.0", "layer1.1", "layer2.0", "layer2.1"),
    (("keep", "keep", "skip", "skip"), ("keep", "skip", "skip", "route")),
)


SEARCHED = ["keep_probability", "search", "policy_entropy", "task_relations"]


def draw(name, run, theme=LIGHT):
    with style(theme):
        return PLOTS[name](run, theme)


def words(figure) -> set[str]:
    """All text in a figure, titles and labels and legends among it."""
    figure.canvas.draw()
    return {text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))} - {""}


# what is written


def test_every_plot_is_written_light_and_dark(plots, finished):
    assert list(plots) == [
        "keep_table", "keep_probability", "search", "policy_entropy", "task_relations", "loss", "validation",
    ]  # fmt: skip
    folder = finished.path / "plots"
    for name, paths in plots.items():
        assert paths == {"light": folder / f"{name}.png", "dark": folder / f"{name}_dark.png"}
    assert {path.name for path in folder.iterdir()} == {
        p.name for paths in plots.values() for p in paths.values()
    }


@pytest.mark.parametrize("theme", THEMES, ids=lambda theme: theme.name)
@pytest.mark.parametrize(
    "name",
    [
        name
        for name in PLOTS
        if name not in ("router", "tuned_blocks") and "lesion" not in name and "budget" not in name
    ],
)
def test_no_plot_is_blank(plots, name, theme):
    with Image.open(plots[name][theme.name]) as opened:
        pixels = np.asarray(opened.convert("RGB"), dtype=int)
    background = [int(theme.background[i : i + 2], 16) for i in (1, 3, 5)]
    height, width = pixels.shape[:2]
    assert (pixels[0, 0] == background).all() and width > 1000
    drawn = (abs(pixels - background) > 24).any(axis=-1)
    # each quarter of the picture has something in it
    for quarter in (drawn[: height // 2], drawn[height // 2 :]):
        for half in (quarter[:, : width // 2], quarter[:, width // 2 :]):
            assert half.mean() > 0.003


@pytest.mark.parametrize(
    "upto, made",
    [("warmup", ["loss", "validation"]), ("search", [*SEARCHED, "loss", "validation"])],
)
def test_a_run_that_still_trains_has_the_plots_it_can_have(run_of, upto, made):
    run = run_of("run", upto=upto)
    assert [name for name in PLOTS if draw(name, run)] == made


def test_nothing_logged_nothing_drawn(finished, tmp_path):
    empty = replace(finished, rows=(), plan=None)
    assert write_plots(empty, tmp_path / "plots") == {}
    assert not (tmp_path / "plots").exists()


def test_a_router_has_curves_of_its_own(tmp_path):
    run = read_run(make_routed_run(tmp_path / "run"))
    drawn = draw("router", run)
    assert {
        "reward", "usage of the routed blocks", "right answers", "different policies", "open blocks",
        "gamma (penalty of a wrong answer)", "retrain", "route",
    } <= words(drawn)  # fmt: skip
    (curve,) = [line for line in drawn.axes[1].get_lines() if len(line.get_xdata()) == 10]
    assert list(curve.get_ydata()) == pytest.approx([1 - 0.05 * n for n in (*range(1, 8), 7, 8, 9)])


def test_single_task_nets_have_no_keep_table(run_of):
    assert draw("keep_table", run_of("run", method="single")) is None


def test_one_epoch_of_search_has_no_history_yet(finished):
    first = finished.of_kind("policy")[0]
    run = replace(finished, rows=(first,))
    assert draw("search", run) is None and draw("keep_probability", run) is not None


# the keep table


@pytest.mark.parametrize("theme", THEMES, ids=lambda theme: theme.name)
def test_the_keep_table_says_by_colour_who_keeps_what(finished, theme):
    figure = draw("keep_table", replace(finished, plan=PLAN), theme)
    (ax,) = figure.axes
    cells = {}
    for cell in ax.patches:
        b, k = round(cell.get_x() + cell.get_width() / 2), round(cell.get_y() + cell.get_height() / 2)
        cells["ab"[k], b] = (to_hex(cell.get_facecolor()), bool(cell.get_hatch()))
    assert cells == {
        ("a", 0): (theme.shared, False), ("a", 1): (theme.specific, False),
        ("b", 0): (theme.shared, False), ("b", 1): (theme.band, False),
        ("a", 2): (theme.band, True), ("a", 3): (theme.band, False),
        ("b", 2): (theme.band, True), ("b", 3): (theme.route, False),
    }  # fmt: skip
    assert len({theme.shared, theme.specific, theme.route, theme.band, theme.background}) == 5


def test_the_legend_names_what_occurs(finished):
    def legend(plan):
        (found,) = draw("keep_table", replace(finished, plan=plan)).legends
        return [text.get_text() for text in found.get_texts()]

    shared, specific, skipped = "shared by several tasks", "specific to one task", "skipped"
    assert legend(PLAN) == [shared, specific, "decided per image", skipped, "dropped by all"]
    assert legend(Plan.all_keep(PLAN.tasks, PLAN.blocks)) == [shared]
    one = Plan.from_keep(["a"], PLAN.blocks, [[True, True, True, False]])
    assert legend(one) == ["kept", "dropped by all"]
    assert legend(Plan.all_keep(PLAN.tasks, PLAN.blocks).with_routed(range(4))) == ["decided per image"]


def test_the_keep_table_names_tasks_and_blocks_and_counts(finished):
    figure = draw("keep_table", replace(finished, plan=PLAN))
    found = words(figure)
    assert {"a", "b", *PLAN.blocks, "2/4", "1\N{EN DASH}2/4"} <= found  # b's second is decided per image
    assert {"tasks that may run it", "runs per image, at most"} <= found
    fixed = words(draw("keep_table", replace(finished, plan=PLAN.resolved([False]))))
    assert {"2/4", "1/4", "tasks keeping it", "runs per image"} <= fixed


def test_block_kinds():
    assert plan_pictures.block_kinds(PLAN) == ["shared", "specific", "dropped", "specific"]


def test_executions_by_hand():
    def runs(*rows):
        keep = [[mark == "1" for mark in row] for row in rows]
        return plan_pictures.executions(Plan.from_keep("abc"[: len(rows)], [str(b) for b in range(4)], keep))

    assert runs("1111", "1111") == [1, 1, 1, 1]
    assert runs("1111", "1101") == [1, 1, 1, 2]  # apart after block 2
    assert runs("1011", "0111") == [1, 1, 2, 2]  # one skips 0, the other 1: never together again
    assert runs("1000", "1011", "1011") == [1, 0, 1, 1]
    assert runs("0000", "0000") == [0, 0, 0, 0]


def test_names_are_never_formulas(finished):
    broken = "$\\nosuch{$"  # as a formula it cannot be drawn
    plan = Plan((broken, "c^"), PLAN.blocks, PLAN.table)
    assert broken in words(draw("keep_table", replace(finished, plan=plan)))


# the search


def test_keep_probabilities_are_written_out_with_their_change(finished):
    rows = [
        {"kind": "policy", "stage": "search", "epoch": epoch, "step": epoch, "keep_prob": {"a": keep}}
        for epoch, keep in enumerate(([0.5, 0.5, 0.5], [0.9, 0.3, 0.502]))
    ]
    found = words(draw("keep_probability", replace(finished, rows=tuple(rows), plan=None)))
    assert {"a", "0", "1", "2", ".90", "+.40", ".30", "\N{MINUS SIGN}.20", ".50"} <= found
    assert "+.00" not in found and "\N{EN DASH}" not in found
    last = rows[-1] | {"open_blocks": 1}  # the curriculum came to one of three
    found = words(draw("keep_probability", replace(finished, rows=(rows[0], last), plan=None)))
    assert "\N{EN DASH}" in found and ".50" in found and not {".90", ".30"} & found


def test_the_search_has_a_panel_per_task_then_temperature_and_open_blocks(finished):
    *panels, _colorbar = draw("search", finished).axes
    assert [ax.get_title(loc="left") for ax in panels] == [*TASKS, "tau (temperature)", "open blocks"]
    seg = panels[0].images[0].get_array()
    assert seg.shape == (8, 8)  # blocks from the bottom, epochs from the left
    last = finished.of_kind("policy")[-1]
    assert seg[:, -1].tolist() == last["keep_prob"]["seg"]
    assert np.isnan(np.ma.filled(seg[:6, 0], np.nan)).all() and np.isfinite(seg[6:, 0]).all()  # two are open
    assert panels[-1].lines[0].get_ydata()[:3].tolist() == [2, 4, 6]
    assert panels[-2].lines[0].get_ydata()[-1] == last["tau"]


# curves


def test_losses_have_a_panel_per_task(finished):
    axes = draw("loss", finished).axes
    assert [ax.get_title(loc="left") for ax in axes] == list(TASKS)
    logged, average = axes[0].lines[-2:]
    expected = [row["loss/seg"] for row in finished.of_kind("train")]
    assert list(logged.get_ydata()) == expected and list(average.get_ydata()) == smoothed(expected)
    assert axes[0].get_ylabel() == "loss" and axes[-1].get_xlabel() == "step"


def test_validation_shows_the_main_metric_its_unit_and_direction(finished):
    titles = [ax.get_title(loc="left") for ax in draw("validation", finished).axes]
    assert titles[1] == "depth   abs_rel \N{DOWNWARDS ARROW}"
    assert titles[3] == "keypoints   mean_px px \N{DOWNWARDS ARROW}"
    assert titles[5] == "room   top1 \N{UPWARDS ARROW}"


def test_validation_of_a_run_without_results_shows_the_first_metric(run_of):
    axes = draw("validation", run_of("run", upto="warmup", tasks=("edges", "room"))).axes
    assert [ax.get_title(loc="left").split() for ax in axes] == [["edges", "ods_f"], ["room", "top1"]]
    assert len(axes[0].lines[-1].get_ydata()) == 6


def test_values_that_are_not_numbers_are_left_out(finished):
    rows = [
        {"kind": "train", "stage": "retrain", "epoch": 0, "step": step, "loss/seg": value, "loss/depth": None}
        for step, value in enumerate((1.0, float("nan"), None, 3.0))
    ]
    (ax,) = draw("loss", replace(finished, rows=tuple(rows))).axes
    assert ax.lines[-1].get_xdata().tolist() == [0, 3] and ax.lines[-1].get_ydata().tolist() == [1, 3]


@pytest.mark.parametrize("spike, whole", [(5.0, True), (5000.0, False)])
def test_only_a_spike_that_would_flatten_the_curve_is_cut(finished, spike, whole):
    values = [spike, *np.linspace(2, 1, 99)]
    rows = [
        {"kind": "train", "stage": "retrain", "epoch": 0, "step": step, "loss/seg": value}
        for step, value in enumerate(values)
    ]
    low, high = draw("loss", replace(finished, rows=tuple(rows))).axes[0].get_ylim()
    assert low < 1 and (high > spike) == whole and 2 < high < 20


def test_stages_are_named_and_parted(finished):
    assert stage_spans(finished.rows) == [("warmup", 0, 360), ("search", 360, 840), ("retrain", 840, 1680)]
    ax = draw("loss", finished).axes[0]
    assert {text.get_text() for text in ax.texts} == {"warmup", "search", "retrain"}
    assert [line.get_xdata()[0] for line in ax.lines[:2]] == [360, 840]
    assert ax.get_xlim() == (0, 1680)


def test_smoothing_by_hand():
    assert smoothed([5.0]) == [5.0] and smoothed([1.0, 3.0]) == [1.0, 3.0]
    assert smoothed([0.0, 3.0, 0.0, 3.0]) == [0, 1, 2, 3]
    # 120 values: two to each side
    assert smoothed([0.0] * 60 + [1.0] * 60)[57:63] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])


def test_the_themes_are_legible():
    def luminance(colour):
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(a, b):
        dark, light = sorted((luminance(a), luminance(b)))
        return (light + 0.05) / (dark + 0.05)

    for theme in (LIGHT, DARK):
        assert contrast(theme.text, theme.background) > 7
        assert contrast(theme.muted, theme.background) > 4.5
        assert contrast(theme.shared, theme.band) > 3
