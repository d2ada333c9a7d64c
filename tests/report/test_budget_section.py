"""What the page says of a budget: asked for, held in the search, found, and the curve of a sweep."""

import json
import math

import pytest
import yaml

from perceptkit.report.budget_curve import as_json, curve_from
from perceptkit.report.budget_file import BudgetFile, Trial, asked_in, read_budget
from perceptkit.report.budget_plot import budget_search, budget_sweep
from perceptkit.report.budget_section import budget_section
from perceptkit.report.page import render
from perceptkit.report.run_folder import read_run
from perceptkit.report.text import summary
from perceptkit.report.theme import LIGHT, style
from tests.report.fake_run import make_run
from tests.report.test_budget_curve import CURVE

MACS = {
    "kind": "macs",
    "budget": 0.8,
    "cost": 0.788,
    "most_probable": 0.91,
    "is_within": True,
    "next_above": 0.84,
    "given_up": 0.1,
    "multiplier": -0.2,
    "tried": [],
}
DROP = {
    **MACS,
    "kind": "max_drop",
    "budget": 0.01,
    "cost": 0.7,
    "tried": [{"cost": 1.0, "drop": 0.0}, {"cost": 0.7, "drop": 0.008}, {"cost": 0.6, "drop": 0.03}],
}


def with_budget(path, found, upto="retrain", asked=None):
    """A fake run whose search kept to a budget."""
    make_run(path, upto=upto)
    asked = asked or {found["kind"]: found["budget"]}
    specs = yaml.safe_load((path / "resolved.yaml").read_text())
    specs["recipe"]["budget"] = {"macs": None, "params": None, "latency_ms": None, "max_drop": None, **asked}
    (path / "resolved.yaml").write_text(yaml.safe_dump(specs))
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        if row["kind"] == "policy":
            told = {"expected_cost": 1.2 - 0.05 * row["epoch"], "plan_cost": 0.9, "multiplier": 0.125}
            row |= told
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if found is not None:
        (path / "budget.json").write_text(json.dumps(found))
    return path


def cells(table):
    return [[cell.text for cell in row.cells] for row in table.rows]


def test_what_was_asked_for_and_what_was_found(tmp_path):
    section = budget_section(read_run(with_budget(tmp_path / "run", MACS)))
    assert section.words == (
        "Asked for: 0.8 of the MACs of a hard-shared pass. "
        "The plan costs 0.788 of a hard-shared pass, 1.5% below the budget."
    )
    (table,) = section.found
    # 8 epochs of search: 1.2 - 7 * 0.05; the distance is 0.788 / 0.8 - 1
    assert cells(table) == [["0.800", "0.850", "0.910", "0.788", "\N{MINUS SIGN}1.5", "0.125"]]
    assert section.sweep is None


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"is_within": False, "cost": 0.6}, "25.0% below the budget. Blocks are too coarse for less: the next plan"),
        ({"is_within": False, "next_above": None}, "No plan that was found spends more."),
        (
            {"is_within": False, "cost": 0.6, "next_above": None, "search_ended_with": 0.788},
            "25.0% below the budget. It was the best on val; the search ended with one that costs 0.788.",
        ),
        ({"kind": "latency_ms", "budget": 4.0, "cost": 4.04}, "The plan costs 4.040 ms, 1.0% above the budget."),
        ({"kind": "params", "cost": 0.8}, "Asked for: 0.8 of the parameters of the hard-shared network."),
    ],
)  # fmt: skip
def test_words(tmp_path, changed, words):
    run = read_run(with_budget(tmp_path / "run", {**MACS, **changed}))
    assert words in budget_section(run).words


def test_a_loss_of_quality_has_the_plans_that_were_tried(tmp_path):
    section = budget_section(read_run(with_budget(tmp_path / "run", DROP)))
    assert section.words.endswith(
        "The plan costs 0.700 of a hard-shared pass and loses 0.80% of the quality."
    )
    found, tried = section.found
    assert cells(found)[0][0] == "1.00" and cells(found)[0][4] == "\N{MINUS SIGN}20.0"  # 0.8 % of 1 %
    assert cells(tried) == [["1.000", "0.00"], ["0.700", "0.80"], ["0.600", "3.00"]]
    assert [row.note for row in tried.rows] == ["", "decided", ""]


def test_distance_is_unknown_where_no_such_plan_was_tried():
    found = BudgetFile("max_drop", 0.01, 0.7, 0.9, True, math.inf, (Trial(1.0, 0.0),))
    assert math.isnan(found.distance)


def test_an_unfinished_run_says_what_is_asked_for(tmp_path):
    run = read_run(with_budget(tmp_path / "run", None, upto="search", asked={"macs": 0.8}))
    section = budget_section(run)
    assert section.words.endswith("The plan is decided within it when the search is over.")
    assert section.found == ()
    with style(LIGHT):
        costs, multiplier = budget_search(run, LIGHT).axes
    assert [line.get_label() for line in costs.lines] == ["expected", "plan as decided then", "asked for"]
    assert costs.lines[0].get_ydata()[:2] == pytest.approx([1.2, 1.15])
    assert list(costs.lines[2].get_ydata()) == [0.8, 0.8]
    assert list(multiplier.lines[0].get_ydata()) == [0.125] * 8


def test_a_loss_of_quality_is_no_line_among_costs(tmp_path):
    run = read_run(with_budget(tmp_path / "run", DROP))
    with style(LIGHT):
        assert len(budget_search(run, LIGHT).axes[0].lines) == 2


def test_no_budget_no_section(tmp_path):
    run = read_run(make_run(tmp_path / "run"))
    assert budget_section(run) is None and budget_search(run, LIGHT) is None
    assert "Budget" not in render(run, [], {})


def test_the_curve_of_a_sweep_is_on_the_page_of_each_of_its_runs(tmp_path):
    (tmp_path / "sweep.json").write_text(json.dumps(as_json(CURVE)))
    run = read_run(with_budget(tmp_path / "macs_0.6", {**MACS, "budget": 0.6}))
    section = budget_section(run)
    assert section.sweep_words == "This run is one of 3 that differ in their budget."
    assert [column.title for column in section.sweep.columns] == ["0.4", "0.6", "1"]
    with style(LIGHT):
        assert len(budget_sweep(run, LIGHT).axes) == 3
    page = render(run, [], {})
    assert "<h2>Budget</h2>" in page and "Other budgets" in page
    other = read_run(with_budget(tmp_path / "elsewhere", MACS))
    assert budget_section(other).sweep is None and budget_sweep(other, LIGHT) is None


def test_sweep_json_is_read_back():
    assert curve_from(json.loads(json.dumps(as_json(CURVE)))) == CURVE


def test_the_summary_has_the_budget(tmp_path):
    text = summary([with_budget(tmp_path / "run", MACS)])
    assert "### The budget" in text and "| macs" in text


def test_damaged_files(tmp_path):
    path = with_budget(tmp_path / "run", {**MACS, "kind": "money"}, asked={"macs": 0.8})
    run = read_run(path)
    assert run.budget is None
    assert any(line.startswith("budget.json cannot be read (ValueError: money") for line in run.missing)
    with pytest.raises(KeyError):
        (path / "budget.json").write_text("{}")
        read_budget(path / "budget.json")
    assert asked_in({"budget": None}) is None and asked_in({"budget": {"params": 0.5}}) == ("params", 0.5)
