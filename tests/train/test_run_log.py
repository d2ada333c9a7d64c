"""The run log: append-only, cut back to the checkpoint on resume."""

import csv

from perceptkit.train.run_log import RunLog, read_rows


def test_rows_and_csv(tmp_path):
    log = RunLog(tmp_path)
    log.row("train", "warmup", 0, 5, loss=1.5)
    log.row("policy", "search", 1, 9, tau=2.0, keep_prob={"a": [0.5]})
    log.write_csv()
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    assert rows[0]["loss"] == "1.5" and rows[0]["tau"] == "" and rows[1]["tau"] == "2.0"
    assert "keep_prob" not in rows[0]


def test_resume_drops_rows_after_the_checkpoint(tmp_path):
    log = RunLog(tmp_path)
    for step in (5, 10, 15):
        log.row("train", "warmup", 0, step, loss=0.0)
    RunLog(tmp_path, upto_step=10)
    assert [row["step"] for row in read_rows(tmp_path / "metrics.jsonl")] == [5, 10]


def test_a_line_cut_short_is_left_out(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"ste')
    assert read_rows(tmp_path / "metrics.jsonl") == [{"step": 1}]


def test_other_ranks_write_nothing(tmp_path):
    log = RunLog(tmp_path, enabled=False)
    log.row("train", "warmup", 0, 1)
    log.say("hello")
    log.write_csv()
    assert not list(tmp_path.iterdir())
