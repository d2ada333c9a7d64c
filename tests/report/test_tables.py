"""The tables: what is marked, compared and noted; ratios by hand."""

import json
from dataclasses import replace

import pytest

from perceptkit.errors import SpecError
from perceptkit.report.grid import Cell, Table
from perceptkit.report.run_folder import Cost, Price, Run, read_run
from perceptkit.report.tables import (
    beats_constant,
    cost_table,
    markdown,
    mean_delta,
    results_table,
    single_query_table,
    summary_table,
)
from tests.report.fake_run import make_run

UP, DOWN = "\N{UPWARDS ARROW}", "\N{DOWNWARDS ARROW}"
COST = Cost(
    (3, 64, 96),
    {
        "compact": Price(params=1_000_000, macs=30_000_000, backbone_macs=15_000_000),
        "hard_shared": Price(params=2_000_000, macs=40_000_000, backbone_macs=20_000_000),
        "single_task_nets": Price(params=8_000_000, macs=120_000_000, backbone_macs=80_000_000),
    },
    {"seg": 24_000_000, "depth": 12_000_000},
)


def row(table: Table, label: str) -> list[Cell]:
    (found,) = (row for row in table.rows if row.label == label)
    return list(found.cells)


def texts(table: Table, label: str) -> list[str]:
    return [cell.text for cell in row(table, label)]


def marks(table: Table, label: str) -> list[str]:
    return [cell.mark for cell in row(table, label)]


def with_metrics(run: Run, **by_task: dict[str, float]) -> Run:
    """The run with other numbers for some metrics."""
    tasks = {
        name: replace(task, metrics={**task.metrics, **by_task.get(name, {})})
        for name, task in run.results.tasks.items()
    }
    return replace(run, results=replace(run.results, tasks=tasks))


# results


def test_columns_are_the_runs_then_the_constant_predictor(run_of):
    table = results_table([run_of("mine"), run_of("dense", method="hard"), run_of("nets", method="single")])
    assert [(column.title, column.note) for column in table.columns] == [
        ("adashare", "mine"), ("hard", "dense"), ("single", "nets"), ("constant predictor", ""),
    ]  # fmt: skip
    assert texts(table, "rmse") == ["0.470", "0.470", "0.470", "1.273"]


def test_rows_are_the_tasks_each_with_its_main_metric_first(finished):
    rows = results_table([finished]).rows
    assert [(row.label, row.note, row.kind) for row in rows[:7]] == [
        ("seg", "segmentation", "task"),
        ("miou", UP, "primary"),
        ("pixel_acc", UP, ""),
        ("depth", "", "task"),
        ("abs_rel", DOWN, "primary"),
        ("abs_err", f"m {DOWN}", ""),
        ("rmse", f"m {DOWN}", ""),
    ]
    task = finished.results.tasks["edges"]
    tasks = {"edges": replace(task, primary="l1")}
    rows = results_table([replace(finished, results=replace(finished.results, tasks=tasks))]).rows
    assert [row.label for row in rows] == ["edges", "l1", "ods_f", "ois_f"]


def test_decimals_follow_the_unit(finished):
    table = results_table([finished])
    assert texts(table, "mean_deg") == ["14.2", "48.8"]
    assert texts(table, "mean_px") == ["3.41", "14.62"]
    assert texts(table, "abs_rel") == ["0.112", "0.391"]


def test_the_best_run_is_marked_up_or_down(run_of):
    table = results_table([run_of("a", method="hard"), run_of("b", method="hard", factor=1.1)])
    for metric in ("miou", "abs_rel", "mean_deg"):
        assert marks(table, metric) == ["", "best", ""], metric
    assert table.has_best


def test_one_run_is_not_the_best_of_itself(finished):
    table = results_table([finished])
    assert not table.has_best
    assert not any("delta-MTL" in note or "(!)" in note for note in table.notes)


@pytest.mark.parametrize(
    "metric, value, mark",
    [("miou", 0.079, "poor"), ("miou", 0.05, "poor"), ("miou", 0.08, ""), ("miou", float("nan"), "")],
)
def test_no_better_than_the_constant_predictor_is_marked(finished, metric, value, mark):
    table = results_table([with_metrics(finished, seg={metric: value})])
    assert marks(table, metric) == [mark, ""]
    assert any(note.startswith("(!)") for note in table.notes) == (mark == "poor")


def test_where_lower_is_better_the_constant_predictor_is_beaten_from_below(finished):
    table = results_table([with_metrics(finished, depth={"rmse": 1.3, "abs_err": 0.9})])
    assert marks(table, "rmse") == ["poor", ""] and marks(table, "abs_err") == ["", ""]


def test_poor_is_said_even_of_the_best_run(finished):
    better = with_metrics(finished, room={"top1": 0.2})
    worse = with_metrics(finished, room={"top1": 0.1})
    assert marks(results_table([better, worse]), "top1") == ["poor", "poor", ""]


def test_beats_constant_counts_main_metrics_that_compare(finished):
    assert beats_constant(finished) == (6, 6)
    # a secondary metric does not count, a tie is no win, NaN does not compare
    run = with_metrics(finished, seg={"pixel_acc": 0}, depth={"abs_rel": 0.391}, room={"top1": float("nan")})
    assert beats_constant(run) == (4, 5)


def test_deltas_by_hand(run_of):
    tasks = ("edges", "room")
    mine, nets = run_of("mine", tasks=tasks, factor=1.1), run_of("nets", tasks=tasks, method="single")
    table = results_table([mine, nets])
    # edges: ods_f and ois_f +10 %, l1 falls to 1/1.1: +9.09 %; room: +10 %
    assert texts(table, "edges") == ["+9.7 %", "", ""]
    assert texts(table, "room") == ["+10.0 %", "", ""]
    assert texts(table, "delta-MTL") == ["+9.8 %", "", ""]
    assert mean_delta([mine, nets]) == pytest.approx(((10 + 10 + 100 / 11) / 3 + 10) / 2)
    assert any("(nets)" in note for note in table.notes)


def test_the_best_delta_is_marked(run_of):
    runs = [run_of(name, tasks=("room",), factor=f) for name, f in (("a", 0.9), ("b", 0.95))]
    table = results_table([*runs, run_of("nets", tasks=("room",), method="single")])
    assert texts(table, "delta-MTL") == ["\N{MINUS SIGN}10.0 %", "\N{MINUS SIGN}5.0 %", "", ""]
    assert marks(table, "delta-MTL") == ["", "best", "", ""]


def test_without_single_task_nets_there_is_no_delta(run_of):
    runs = [run_of("mine"), run_of("dense", method="hard")]
    assert all(row.label != "delta-MTL" for row in results_table(runs).rows)
    assert mean_delta(runs) != mean_delta(runs)  # NaN


def test_a_task_that_one_run_lacks_stays_empty_there(run_of):
    table = results_table([run_of("one", tasks=("seg",)), run_of("two", tasks=("seg", "room"))])
    assert texts(table, "top1") == ["", "0.813", ""]
    assert texts(table, "miou") == ["0.524", "0.524", "0.079"]


def test_runs_of_the_same_name_say_where_they_lie(run_of, tmp_path):
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    table = results_table([run_of("a/run"), run_of("b/run")])
    assert [column.note for column in table.columns] == ["a/run", "b/run", ""]


def test_not_like_for_like_is_noted(run_of):
    a, b = run_of("a"), run_of("b")
    assert not any("like for like" in note for note in results_table([a, b]).notes)
    other = replace(b, results=replace(b.results, backbone="vit", split="val"), cost=COST)
    assert [note for note in results_table([a, other]).notes if "like for like" in note] == [
        "Not like for like: different backbones (resnet18, vit).",
        "Not like for like: different splits (test, val).",
        "Not like for like: different input sizes (64x64, 64x96).",
    ]


def test_a_run_without_results_is_noted_with_the_reason(run_of):
    damaged = run_of("damaged")
    (damaged.path / "results.json").write_text("{}")
    table = results_table([run_of("mine"), run_of("young", upto="warmup"), read_run(damaged.path)])
    assert [column.note for column in table.columns] == ["mine", ""]
    assert table.notes == (
        "Without results: young; results.json is not there yet.",
        "Without results: damaged; results.json cannot be read (KeyError: 'tasks').",
    )


def test_no_finished_run_at_all(run_of):
    table = results_table([run_of("young", upto="warmup")])
    assert table.columns == table.rows == ()
    assert markdown(table) == "Without results: young; results.json is not there yet.\n"


# costs


def test_cost_ratios_by_hand():
    table = cost_table(COST, "adashare")
    assert [f"{column.title} {column.note}" for column in table.columns] == [
        "parameters M", "ratio to hard-shared", "ratio to 2 single",
        "MACs M", "ratio to hard-shared", "ratio to 2 single", "backbone MACs, M",
    ]  # fmt: skip
    assert texts(table, "compact") == ["1.00", "0.50", "0.12", "30.0", "0.75", "0.25", "15.0"]
    assert texts(table, "hard-shared") == ["2.00", "1.00", "0.25", "40.0", "1.00", "0.33", "20.0"]
    assert texts(table, "2 single-task nets") == ["8.00", "4.00", "1.00", "120.0", "3.00", "1.00", "80.0"]
    assert "one 3x64x96 image" in table.notes[0]


@pytest.mark.parametrize("method, same", [("hard", "hard_shared"), ("single", "single_task_nets")])
def test_the_compact_form_of_a_baseline_is_not_printed_twice(method, same):
    cost = replace(COST, rows={**COST.rows, "compact": COST.rows[same]})
    both = ["hard-shared", "2 single-task nets"]
    assert [row.label for row in cost_table(cost, method).rows] == both
    assert [row.label for row in cost_table(cost, "adashare").rows] == ["compact", *both]


def test_the_static_policy_of_a_router_makes_less_than_hard_sharing():
    assert [row.label for row in cost_table(COST, "hard").rows][0] == "compact"


def test_what_a_router_may_skip_is_counted():
    assert "the router is not" in cost_table(COST, "hard", routed=True).notes[0]
    assert "router" not in cost_table(COST, "hard").notes[0]


def test_a_cost_alone_has_nothing_to_compare_with():
    table = cost_table(replace(COST, rows={"compact": COST.rows["compact"]}), "adashare")
    assert [column.title for column in table.columns] == ["parameters", "MACs", "backbone"]
    assert texts(table, "compact") == ["1.00", "30.00", "15.00"]


def test_one_task_only_by_hand():
    table = single_query_table(COST)
    assert texts(table, "seg") == ["24.00", "0.80"] and texts(table, "depth") == ["12.00", "0.40"]


# the table for a README


def test_summary_has_results_and_prices(run_of):
    mine, dense = run_of("mine"), run_of("dense", method="hard")
    lines = [line for line in summary_table([mine.path, dense.path]).splitlines() if line.startswith("|")]
    label_and_cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    found = {label: cells for label, *cells in label_and_cells}
    assert found["task, metric"] == ["adashare (mine)", "hard (dense)", "constant predictor"]
    assert found[f"abs_rel {DOWN}"] == ["0.112", "0.112", "0.391"]
    assert found[f"**parameters** M {DOWN}"] == ["**2.56**", "3.13", ""]
    assert found[f"**MACs** M {DOWN}"] == ["402.1", "**371.2**", ""]


def test_summary_of_an_unfinished_run_says_so(run_of):
    text = summary_table([run_of("young", upto="search").path])
    assert text == "Without results: young; results.json is not there yet.\n"


def test_summary_without_costs_has_no_prices(run_of):
    run = run_of("mine")
    (run.path / "cost.json").write_text(json.dumps({"input": [3, 64]}))
    (line,) = [line for line in summary_table([run.path]).splitlines() if line.startswith("| **parameters**")]
    assert line.split("|")[2].strip() == ""


def test_summary_of_what_is_no_run(tmp_path):
    with pytest.raises(SpecError, match="no such run folder"):
        summary_table([tmp_path / "nothing"])


def test_norms_of_each_tasks_own_are_told(tmp_path):
    path = make_run(tmp_path / "run", tasks=("seg", "room"))
    recipe = path / "resolved.yaml"
    assert not read_run(path).has_own_norms
    recipe.write_text(
        recipe.read_text().replace("method: adashare", "method: adashare\n    batchnorm: per_task")
    )
    run = read_run(path)
    assert run.has_own_norms
    told, plain = (cost_table(run.cost, "adashare", own_norms=own).notes[0] for own in (True, False))
    assert "norms of its own" in told and "norms of its own" not in plain
