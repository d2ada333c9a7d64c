"""Runs side by side: what is put together, means and deviations by hand, what delta-MTL refers to."""

import json
import math
from pathlib import Path

import pytest
import yaml

from perceptkit import api
from perceptkit.errors import SpecError
from perceptkit.report.comparison import compare, stat
from perceptkit.report.comparison_plots import draw, write_comparison_plots
from perceptkit.report.comparison_tables import as_markdown, tables_of
from perceptkit.report.reference import reference_of
from perceptkit.report.run_folder import read_run
from perceptkit.report.seeds import grouped, recipe_key
from perceptkit.report.theme import LIGHT, style
from tests.report.fake_run import make_run

ROOM = ("room",)
"""One task with one metric, top1: 0.813 times the factor."""


def make(path: Path, seed: int = 0, metric: float | None = None, **how: object) -> Path:
    """A run folder of a seed, whose top1 is `metric`."""
    make_run(path, **{"tasks": ROOM, **how})  # type: ignore[arg-type]
    specs = yaml.safe_load((path / "resolved.yaml").read_text())
    specs["recipe"]["seed"] = seed
    (path / "resolved.yaml").write_text(yaml.safe_dump(specs))
    results = json.loads((path / "results.json").read_text())
    results["seed"] = seed
    if metric is not None:
        results["tasks"]["room"]["metrics"]["top1"] = metric
    (path / "results.json").write_text(json.dumps(results))
    return path


def change(path: Path, **recipe: object) -> Path:
    """The run with other keys in its resolved recipe."""
    specs = yaml.safe_load((path / "resolved.yaml").read_text())
    specs["recipe"].update(recipe)
    (path / "resolved.yaml").write_text(yaml.safe_dump(specs))
    return path


@pytest.fixture
def seeds(tmp_path) -> list[Path]:
    """Two seeds of AdaShare and two of single-task nets."""
    return [
        make(tmp_path / "mine_s0", 0, 0.66),
        make(tmp_path / "mine_s1", 1, 0.78),
        make(tmp_path / "nets_s0", 0, 0.55, method="single"),
        make(tmp_path / "nets_s1", 1, 0.65, method="single"),
    ]


# what is one row


def test_runs_that_differ_in_seed_only_are_one_row(seeds):
    found = compare(seeds)
    assert [(row["title"], row["seeds"]) for row in found["rows"]] == [("mine", [0, 1]), ("nets", [0, 1])]
    assert "mine: 2 runs that differ in seed only: mine_s0 (seed 0), mine_s1 (seed 1)." in found["notes"]


def test_any_other_key_makes_another_row(tmp_path):
    runs = [make(tmp_path / name, seed) for seed, name in enumerate("abcd")]
    change(runs[1], sharing={"method": "adashare", "sparsity": 0.1})
    change(runs[2], loader={"workers": 2, "batch": 16})
    change(runs[3], loader={"workers": 0, "batch": 16})  # how many read pictures changes no step
    assert [len(group.runs) for group in grouped([read_run(run) for run in runs])] == [1, 1, 2]


def test_the_name_of_the_tasks_does_not_count_but_the_data_do(tmp_path):
    runs = [make(tmp_path / name) for name in "abc"]
    for run, key, value in ((runs[1], "name", "other"), (runs[2], "data", {"seed": 1})):
        specs = yaml.safe_load((run / "resolved.yaml").read_text())
        specs["tasks_file"][key] = value
        (run / "resolved.yaml").write_text(yaml.safe_dump(specs))
    first, renamed, other = (recipe_key(read_run(run)) for run in runs)
    assert first == renamed != other


def test_what_a_run_started_from_counts_by_its_own_recipe(tmp_path):
    bases = [make(tmp_path / f"base{seed}", seed) for seed in (0, 1)]
    runs = [
        change(make(tmp_path / f"run{i}"), start_from=str(bases[i] if i < 2 else "gone")) for i in (0, 1, 2)
    ]
    keys = [recipe_key(read_run(run)) for run in runs]
    assert keys[0] == keys[1] != keys[2]


def test_what_a_random_plan_was_counted_in_counts_by_its_own_recipe(tmp_path):
    learned = [make(tmp_path / f"learned{seed}", seed) for seed in (0, 1)]
    runs = [make(tmp_path / f"random{seed}", seed) for seed in (0, 1)]
    for run, counted in zip(runs, learned, strict=True):
        change(run, sharing={"method": "random", "skips_of": str(counted)})
    other = change(make(tmp_path / "skips"), sharing={"method": "random", "skips": 4})
    keys = [recipe_key(read_run(run)) for run in (*runs, other)]
    assert keys[0] == keys[1] != keys[2]


def test_a_run_without_settings_is_alone(tmp_path):
    runs = [make(tmp_path / name) for name in "ab"]
    for run in runs:
        (run / "resolved.yaml").unlink()
    assert [group.title for group in grouped([read_run(run) for run in runs])] == ["a", "b"]


@pytest.mark.parametrize(
    ("names", "title"),
    [
        (("hard_s0", "hard_s1"), "hard"),
        (("doom-seed-1", "doom-seed-2"), "doom"),
        (("0/mine", "1/mine"), "mine"),
        (("left", "right"), "left"),
        (("runs", "runs2"), "run"),
    ],
)
def test_titles(tmp_path, names, title):
    runs = [read_run(make(tmp_path / name, seed)) for seed, name in enumerate(names)]
    assert [group.title for group in grouped(runs)] == [title]


def test_systems_of_the_same_name_say_where_they_are(tmp_path):
    runs = [read_run(make(tmp_path / p / "mine", method=m)) for p, m in (("a", "hard"), ("b", "adashare"))]
    assert [group.title for group in grouped(runs)] == ["a/mine", "b/mine"]


def test_a_run_that_is_named_twice_counts_once(seeds):
    found = compare([seeds[0], seeds[0], seeds[2]], [seeds[2]])
    assert [len(row["runs"]) for row in found["rows"]] == [1, 1]


def test_the_same_seed_twice_is_told(tmp_path):
    found = compare([make(tmp_path / "a0"), make(tmp_path / "a1")])
    assert any("have the same seed" in note for note in found["notes"])


# numbers


def test_stat_by_hand():
    assert stat([0.66, 0.78])["mean"] == pytest.approx(0.72)
    assert stat([0.66, 0.78])["std"] == pytest.approx(0.12 / math.sqrt(2))
    assert stat([0.5, None, math.nan]) == {"mean": 0.5, "std": None, "values": [0.5, None, None]}
    assert stat([None]) == {"mean": None, "std": None, "values": [None]}


def test_delta_mtl_by_hand(seeds):
    """Single-task nets: 0.60 on average. Of the runs 0.66 is +10 % of it, 0.78 +30 %."""
    mine, nets = compare(seeds)["rows"]
    assert mine["delta_mtl"]["values"] == pytest.approx([10, 30])
    assert mine["delta_mtl"]["mean"] == pytest.approx(20)
    assert mine["delta_mtl"]["std"] == pytest.approx(20 / math.sqrt(2))
    assert mine["delta_by_task"]["room"]["mean"] == pytest.approx(20)
    # the nets' own: what seeds alone do
    assert nets["delta_mtl"]["values"] == pytest.approx([-50 / 6, 50 / 6])
    assert mine["metrics"]["room"]["top1"]["mean"] == pytest.approx(0.72)


def test_baselines_replace_the_nets_among_the_runs(seeds):
    mine, *_ = compare(seeds[:3], [seeds[3]])["rows"]
    assert mine["delta_mtl"]["values"] == pytest.approx([100 * (0.66 / 0.65 - 1), 100 * (0.78 / 0.65 - 1)])


def test_baselines_of_one_task_each_are_put_together(tmp_path):
    mine = make_run(tmp_path / "mine", tasks=("room", "edges"))
    nets = [
        make_run(tmp_path / task, method=method, tasks=(task,), factor=0.5)
        for task, method in (("room", "single"), ("edges", "hard"))
    ]
    row = compare([mine], nets)["rows"][0]
    # twice as good: +100 % where higher is better, -50 % of an error
    assert row["delta_by_task"]["room"]["mean"] == pytest.approx(100)
    assert row["delta_by_task"]["edges"]["mean"] == pytest.approx((100 + 100 + 50) / 3)
    assert row["delta_mtl"]["mean"] == pytest.approx((100 + 250 / 3) / 2)


def test_a_metric_that_is_no_number_in_one_seed_is_left_out_of_the_reference(seeds):
    runs = [read_run(make(seeds[0].parent / f"n{i}", i, value)) for i, value in enumerate((math.nan, 0.5))]
    reference = reference_of(runs)
    assert reference is not None and reference.metrics["room"]["top1"] == 0.5


def test_costs(seeds):
    mine, nets = compare(seeds)["rows"]
    assert mine["params"]["mean"] == 2_561_312 and mine["params"]["std"] == 0
    assert mine["of_hard_shared"]["mean"] == pytest.approx(402_118_400 / 371_220_480)
    assert nets["macs"]["mean"] == 576_380_880
    assert mine["per_task_macs"]["room"]["mean"] == 88_412_160


# latency


def write_benchmark(run: Path, milliseconds: float, threads: int = 2) -> None:
    row = {"batches": {"1": {"ms": {"median": milliseconds}}}}
    (run / "benchmark").mkdir()
    machine = {"device": "x86_64", "threads": threads}
    text = json.dumps({"rows": {"compact": row}, "machine": machine})
    (run / "benchmark/benchmark.json").write_text(text)


def test_latency_is_that_of_the_benchmark_or_the_command_that_measures_it(seeds):
    write_benchmark(seeds[0], 3.0)
    write_benchmark(seeds[1], 5.0)
    found = compare(seeds)
    assert found["rows"][0]["latency_ms"]["mean"] == 4.0 and found["rows"][1]["latency_ms"]["mean"] is None
    (note,) = (note for note in found["notes"] if note.startswith("No latency"))
    assert f"`perceptkit benchmark {seeds[2]} --variants compact --batch 1`" in note and "--latency" in note


def test_latencies_of_different_threads_are_told_apart(seeds):
    write_benchmark(seeds[0], 3.0)
    write_benchmark(seeds[1], 5.0, threads=1)
    assert any("different devices or numbers of threads" in note for note in compare(seeds)["notes"])


def test_latency_that_was_just_measured_is_a_part_of_the_single_task_nets(seeds):
    measured = dict(zip(seeds, (6.0, 9.0, 10.0, 20.0), strict=True))
    mine, nets = compare(seeds, latency_ms=measured)["rows"]
    assert mine["latency_of_single"]["values"] == [0.4, 0.6]  # of 15, the mean of the nets
    assert nets["latency_of_single"]["mean"] == 1.0
    table, *_ = tables_of(compare(seeds, latency_ms=measured))
    assert (table.columns[-1].title, table.columns[-1].note) == ("latency", "of single")
    assert "latency_of_single" not in compare(seeds)["rows"][0]


def test_latency_that_was_just_measured(seeds):
    write_benchmark(seeds[0], 3.0)
    found = compare(seeds, latency_ms=dict.fromkeys(seeds[:2], 7.0))
    assert found["rows"][0]["latency_ms"]["values"] == [7.0, 7.0]


# what cannot be compared


def test_refusals(seeds, tmp_path):
    unfinished = make_run(tmp_path / "unfinished", upto="search")
    with pytest.raises(SpecError, match="none of these runs is finished: unfinished"):
        compare([unfinished])
    with pytest.raises(SpecError, match="unfinished is not finished"):
        compare(seeds, [unfinished])
    with pytest.raises(SpecError, match="no run of single-task nets: its sharing.method is hard"):
        compare(seeds, [make_run(tmp_path / "hard", method="hard")])
    with pytest.raises(SpecError, match="nowhere"):
        compare([tmp_path / "nowhere"])


def test_without_single_task_nets_there_is_no_delta(seeds, tmp_path):
    found = compare(seeds[:2])
    assert found["rows"][0]["delta_mtl"] is None
    assert any("name one with --baseline" in note for note in found["notes"])
    assert "delta-MTL" not in [column.title for column in tables_of(found)[0].columns]
    assert write_comparison_plots(found, tmp_path) == []


def test_a_run_without_results_is_told(seeds, tmp_path):
    found = compare([*seeds, make_run(tmp_path / "unfinished", upto="search")])
    assert len(found["rows"]) == 2
    assert any(note.startswith("Without results: unfinished") for note in found["notes"])


# what is printed and drawn


def test_tables(seeds):
    overview, room = tables_of(compare(seeds))
    assert [column.title for column in overview.columns] == [
        "seeds", "delta-MTL", "room", "parameters", "MACs", "MACs", "latency",
    ]  # fmt: skip
    mine, nets, constant = overview.rows
    assert [cell.text for cell in mine.cells[:3]] == ["2", "+20.0 \N{PLUS-MINUS SIGN} 14.1", "0.720 ± 0.085"]
    assert mine.cells[2].mark == "best" and nets.note == "single" and constant.cells[2].text == "0.227"
    assert [column.title for column in room.columns] == ["delta", "top1", "MACs"]


def test_worse_than_a_constant_is_marked(tmp_path):
    found = compare([make(tmp_path / "bad", metric=0.1)])
    overview = tables_of(found)[0]
    assert overview.rows[0].cells[0].mark == "poor" and "(!)" in overview.notes[-1]
    assert "seeds" not in [column.title for column in overview.columns]  # nothing was put together


def test_a_task_that_some_runs_lack(tmp_path):
    found = compare([make(tmp_path / "one"), make_run(tmp_path / "two", tasks=("room", "edges"))])
    _, _, edges = tables_of(found)
    assert [row.label for row in edges.rows] == ["two", "constant predictor"]


def test_the_plot_has_a_point_and_a_name_for_every_row(seeds):
    with style(LIGHT):
        made = draw(compare(seeds)["rows"], "macs", LIGHT)
    assert made is not None
    (ax,) = made.axes
    assert {text.get_text() for text in ax.texts} == {"mine", "nets"}
    assert len(ax.containers) == 2  # error bars


def test_everything_is_written(seeds, tmp_path):
    found = api.compare(seeds, out=tmp_path / "out")
    names = [Path(path).name for path in found["written"]]
    assert names == ["comparison.md", "comparison.json", "delta_mtl_macs.png", "delta_mtl_params.png"]
    assert all(Path(path).is_file() for path in found["written"])
    assert json.loads((tmp_path / "out/comparison.json").read_text())["rows"][0]["title"] == "mine"
    assert (tmp_path / "out/comparison.md").read_text() == as_markdown(found)


# what counts


def test_what_counts_can_be_said(tmp_path):
    make_run(tmp_path / "mine", tasks=("seg", "room"), factor=1.1)
    make_run(tmp_path / "nets", "single", tasks=("seg", "room"))
    results = json.loads((tmp_path / "mine" / "results.json").read_text())
    metrics = results["tasks"]["seg"]["metrics"]
    first = list(metrics)[0]
    single = json.loads((tmp_path / "nets" / "results.json").read_text())["tasks"]["seg"]["metrics"][first]
    info = results["tasks"]["seg"]["info"][first]
    expected = 100 * (metrics[first] - single) / single * (1 if info["higher_is_better"] else -1)
    told = compare([tmp_path / "mine", tmp_path / "nets"], counted={"seg": [first]})
    assert told["rows"][0]["delta_by_task"]["seg"]["mean"] == pytest.approx(expected)
    assert any(f"Of seg it counts {first} alone." in note for note in told["notes"])
    assert (
        compare([tmp_path / "mine", tmp_path / "nets"])["rows"][0]["delta_by_task"]["seg"]["mean"] != expected
    )


@pytest.mark.parametrize(
    ("counted", "message"),
    [
        ({"room": ["miou"]}, "room has no metric 'miou' that could count; it has top1"),
        ({"rooms": ["top1"]}, "no task 'rooms' whose metrics could count; there are room"),
    ],
)
def test_what_cannot_count_is_refused(seeds, counted, message):
    with pytest.raises(SpecError, match=message):
        compare(seeds, counted=counted)
