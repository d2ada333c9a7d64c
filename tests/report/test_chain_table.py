"""What every stage did, as the page and Markdown have it."""

import json

import pytest

from perceptkit.report import chain_file
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


FILE = {"format": "onnx", "precision": "32", "heads": {"seg": {"max_abs": 3e-6, "scale": 1.5}}}


def export_to(run, name, entry, size=1000):
    """A file of exports/ with its record."""
    folder = run / "exports"
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"x" * size)
    record = folder / "parity.json"
    entries = json.loads(record.read_text()) if record.is_file() else {}
    record.write_text(json.dumps({**entries, name: entry}))


def cells_of(table, label):
    return next([cell.text for cell in row.cells] for row in table.rows if row.label == label)


def test_it_ends_with_the_exported_files(tmp_path):
    export_to(tmp_path, "model.onnx", FILE | {"val": {"seg": {"miou": 0.481}}, "macs": 2.9e6}, 9_100_000)
    accuracy = {"seg": {"miou": {"float32": 0.48, "int8": 0.47}}}
    export_to(
        tmp_path, "model_int8.onnx",
        FILE | {"precision": "int8", "measured_on": "val", "accuracy": accuracy}, 2_400_000,
    )  # fmt: skip
    book = tmp_path / "exports/codebook"
    book.mkdir()
    for name in ("router.onnx", "network_0.onnx"):
        (book / name).write_bytes(b"x" * 600_000)
    accuracy = {"seg": {"miou": {"own decisions": 0.48, "codebook": 0.46}}}
    told = {"dynamic_skip": "codebook", "macs": 3.2e6, "measured_on": "val", "accuracy": accuracy}
    (book / "parity.json").write_text(json.dumps(FILE | told))
    table = chain_table(chain_of(tmp_path))
    assert [(column.title, column.note) for column in table.columns][3:] == [
        ("emitted", "the artifact"),
        ("model.onnx", "onnx"),
        ("model_int8.onnx", "onnx, int8"),
        ("codebook", "onnx, codebook"),
    ]
    assert cells_of(table, "miou, val")[3:] == ["0.480", "0.481", "0.470", "0.460"]
    assert cells_of(table, "miou, test")[3:] == ["0.450", "", "", ""]
    assert cells_of(table, "MACs")[3:] == ["3.00", "2.90", "3.00", "3.20"]
    assert cells_of(table, "stored")[3:] == ["9.00", "9.10", "2.40", "1.20"]
    assert cells_of(table, "off the artifact") == ["", "", "", "", "2.0e-06", "2.0e-06", "2.0e-06"]


def test_a_file_that_only_was_compared_has_no_metrics(tmp_path):
    export_to(tmp_path, "model.pt2", FILE | {"format": "torch"})
    (row,) = chain_of(tmp_path).exported
    assert (row.val, row.macs) == ({}, 3e6)  # those of the artifact, as older records say nothing of MACs


def test_what_is_gone_or_damaged_is_not_there(tmp_path):
    export_to(tmp_path, "model.onnx", FILE)
    export_to(tmp_path, "gone.onnx", FILE)
    (tmp_path / "exports/gone.onnx").unlink()
    for number, damage in enumerate([None, [], {}, FILE | {"heads": {}}, FILE | {"heads": {"seg": 1}}]):
        export_to(tmp_path, f"{number}.onnx", damage)
    export_to(tmp_path, "../stages.json", FILE)  # outside of exports/, and no file of this name in it
    chain = chain_of(tmp_path)
    assert [row.stage for row in chain.exported] == ["model.onnx"]
    assert chain.damaged == tuple(f"{number}.onnx" for number in range(5))
    assert "cannot be read: 0.onnx, 1.onnx" in chain_table(chain).notes[-1]
    (tmp_path / "exports/parity.json").write_text("{")
    assert chain_of(tmp_path).exported == ()


def test_differences_are_parts_of_the_scale_that_verification_has():
    from perceptkit.compact import verify

    assert chain_file.SMALLEST_SCALE == verify.SMALLEST_SCALE
