"""What the page says of plans that were drawn."""

import json

import pytest

from perceptkit.report.page import write_report
from perceptkit.report.run_folder import read_run
from perceptkit.report.samples_table import plans_table
from perceptkit.report.tables import samples_spread_table
from tests.report.fake_run import add_samples, make_run


@pytest.fixture
def run(tmp_path):
    path = make_run(tmp_path / "run", tasks=("seg", "room"))
    add_samples(path)
    return path


def cells(row):
    return [cell.text for cell in row.cells]


def test_plans_with_their_mean_and_deviation(run):
    table = plans_table(read_run(run).results.samples)
    assert [row.label for row in table.rows] == ["plan 1", "plan 2", "mean", "standard deviation"]
    assert [(row.kind, row.note) for row in table.rows[:2]] == [("primary", "chosen"), ("", "")]
    assert cells(table.rows[0]) == ["2", "75.0", "2.561", "402.12", "1.500", "0.700"]
    assert cells(table.rows[2])[0] == "3" and cells(table.rows[2])[4:] == ["2.000", "0.667"]
    assert cells(table.rows[3]) == ["", "0.0", "0.000", "0.00", "0.866", "0.058"]


def test_metrics_beside_their_mean_and_deviation(run):
    table = samples_spread_table(read_run(run).results)
    assert [column.title for column in table.columns] == ["this run", "mean", "standard deviation"]
    rows = {row.label: cells(row) for row in table.rows}
    assert rows["miou"] == ["0.524", "0.524", "0.008"]
    assert next(row for row in table.rows if row.label == "miou").kind == "primary"


def test_the_best_alone_has_no_metrics_to_compare(tmp_path):
    path = make_run(tmp_path / "run", tasks=("seg", "room"))
    assert samples_spread_table(read_run(path).results) is None
    add_samples(path, each=False)
    results = read_run(path).results
    assert samples_spread_table(results) is None
    assert cells(plans_table(results.samples).rows[1])[-1] == ""


@pytest.mark.slow
def test_the_page_has_a_section(run, tmp_path):
    assert "Sampled plans" in write_report(run).read_text()
    other = make_run(tmp_path / "other", tasks=("seg", "room"))
    assert "Sampled plans" not in write_report(other).read_text()


def test_damaged_samples_are_named(run):
    loaded = json.loads((run / "results.json").read_text())
    loaded["samples"]["chosen"] = 7
    (run / "results.json").write_text(json.dumps(loaded))
    assert any("plan 7 of 2" in line for line in read_run(run).missing)
