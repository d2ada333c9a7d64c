"""Losses by source, from the log."""

import json

from perceptkit.report.grid import markdown
from perceptkit.report.run_folder import read_run
from perceptkit.report.source_losses import source_losses
from perceptkit.report.text import summary
from tests.report.fake_run import make_run


def test_first_and_last_epoch_of_the_last_stage(tmp_path):
    path = make_run(tmp_path / "run", "hard", tasks=("seg", "depth"))
    rows = [
        ("warmup", 0, {"source_loss/lab/seg": 9.0}),
        ("retrain", 0, {"source_loss/lab/seg": 4.0, "source_loss/home/depth": 1.5}),
        ("retrain", 0, {"source_loss/lab/seg": 2.0}),
        ("retrain", 3, {"source_loss/lab/seg": 1.0, "source_loss/home/seg": 0.25}),
    ]
    lines = [
        json.dumps({"kind": "train", "stage": stage, "epoch": epoch, "step": i, "loss": 1.0, **losses})
        for i, (stage, epoch, losses) in enumerate(rows)
    ]
    (path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    table = source_losses(read_run(path))
    assert table is not None
    found = [(row.label, *(cell.text for cell in row.cells)) for row in table.rows]
    assert found == [
        ("lab", "", ""),
        ("seg", "3.000", "1.000"),
        ("home", "", ""),
        ("seg", "", "0.250"),
        ("depth", "1.500", ""),
    ]
    text = summary([path]).partition("### Losses by source")[2]
    assert text.strip().startswith(markdown(table).strip())


def test_one_source_has_none(tmp_path):
    assert source_losses(read_run(make_run(tmp_path / "run", "hard"))) is None
