"""What every stage did, as the page and Markdown have it."""

import json

import pytest

from perceptkit.report.chain_file import read_chain
from perceptkit.report.chain_table import chain_table
from perceptkit.report.page import write_report
from perceptkit.report.run_folder import read_run
from perceptkit.report.text import summary
from tests.report.fake_run import make_run
from tests.report.test_page import Page

INFO = {"primary": "miou", "info": {"miou": {"higher_is_better": True, "unit": ""}}}


def row(stage, miou, macs, bits, test=None):
    found = {} if miou is None else {"seg": {"miou": miou}}
    return {
        "stage": stage,
        "val": found,
        "test": {} if test is None else {"seg": {"miou": test}},
        "macs": macs,
        "bits": bits,
    }


CHAIN = {
    "rows": [
        row("base", 0.2, 4e6, 80e6, 0.25),
        row("adapt", 0.5, 5e6, 160e6),
        row("fold", 0.49, 4e6, 80e6),
        row("emitted", 0.48, 3e6, 72e6, 0.45),
    ],
    "tasks": {"seg": INFO, "depth": INFO},
}


def chain_of(tmp_path, value=CHAIN):
    path = tmp_path / "stages.json"
    path.write_text(json.dumps(value))
    return read_chain(path)


def test_a_column_for_each_stage(tmp_path):
    table = chain_table(chain_of(tmp_path))
    assert [column.title for column in table.columns] == ["base", "adapt", "fold", "emitted"]
    rows = {row.label: [cell.text for cell in row.cells] for row in table.rows}
    assert rows["miou, val"] == ["0.200", "0.500", "0.490", "0.480"]
    assert rows["miou, test"] == ["0.250", "", "", "0.450"]
    assert rows["MACs"] == ["4.00", "5.00", "4.00", "3.00"]
    assert rows["stored"] == ["10.00", "20.00", "10.00", "9.00"]


def test_a_new_task_has_no_number_of_the_base(tmp_path):
    table = chain_table(
        chain_of(tmp_path, CHAIN | {"rows": [row("base", None, 1, 8), row("adapt", 0.5, 1, 8)]})
    )
    assert [cell.text for cell in table.rows[1].cells] == ["", "0.500"]
    assert sum(r.label == "miou, test" for r in table.rows) == 0


def test_there_is_none_for_one_stage_alone(tmp_path):
    assert chain_table(chain_of(tmp_path, CHAIN | {"rows": CHAIN["rows"][:1]})) is None
    assert chain_table(None) is None


def test_the_page_and_the_markdown_have_it(tmp_path):
    make_run(tmp_path / "run", "hard", tasks=("seg",))
    (tmp_path / "run/stages.json").write_text(json.dumps(CHAIN))
    assert "What every stage did" in Page(write_report(tmp_path / "run").read_text()).all("h2")
    assert "### What every stage did" in summary([tmp_path / "run"])


@pytest.mark.parametrize("damage", [{"rows": [{}]}, {"tasks": {"seg": {}}}])
def test_a_damaged_file_is_left_out_and_named(tmp_path, damage):
    make_run(tmp_path / "run", "hard", tasks=("seg",))
    (tmp_path / "run/stages.json").write_text(json.dumps(CHAIN | damage))
    run = read_run(tmp_path / "run")
    assert run.chain is None and any(line.startswith("stages.json cannot be read") for line in run.missing)
