"""The table of tools/bench_adaptation.py, of runs that are only written down."""

import json
import sys
from pathlib import Path

import pytest

import perceptkit as pk

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))  # scripts, not a package

import bench_adaptation as bench


def write_run(folder, name, top1, trunk=100, seconds=10.0):
    run = folder / name
    run.mkdir(parents=True)
    results = {"tasks": {"label": {"metrics": {"top1": top1}}}, "train_seconds": seconds}
    (run / "results.json").write_text(json.dumps(results))
    (run / "adaptation.json").write_text(json.dumps({"bits": {"trunk": trunk, "router": 0, "base": 100}}))


def table(folder, capsys):
    assert bench.main([str(folder), "--out", str(folder), "--table"]) == 0
    return capsys.readouterr().out.splitlines()


def test_mean_score_size_and_time(tmp_path, capsys):
    for domain, theirs, ours in (("a", 0.8, 0.9), ("b", 0.6, 0.6)):
        write_run(tmp_path, f"{domain}-finetune-0", theirs)
        write_run(tmp_path, f"{domain}-bn-0", ours, trunk=5, seconds=4.0)
    head, _, *rows = table(tmp_path, capsys)
    assert head == "| method | a | b | mean | score | stored | seconds |"
    assert "| finetune | 80.0 | 60.0 | 70.0 | 500 | 1.000 | 1.00 |" in rows
    score = pk.decathlon_score({"a": 0.9, "b": 0.6}, {"a": 0.8, "b": 0.6})
    assert f"| bn | 90.0 | 60.0 | 75.0 | {score:.0f} | 0.050 | 0.40 |" in rows


def test_a_domain_with_seeds_has_a_spread_and_a_missing_one_no_mean(tmp_path, capsys):
    for seed, top1 in enumerate((0.8, 0.9)):
        write_run(tmp_path, f"a-finetune-{seed}", top1)
    write_run(tmp_path, "b-finetune-0", 0.5)
    write_run(tmp_path, "a-taps_10-0", 0.85)
    rows = table(tmp_path, capsys)
    assert any(row.startswith("| finetune | 85.0 ± 7.1 | 50.0 | 67.5 |") for row in rows)
    assert any(row.startswith("| taps_10 | 85.0 |  |  |  |") for row in rows)


def test_a_run_that_was_stopped_begins_anew_and_a_finished_one_stays(tmp_path, monkeypatch):
    (tmp_path / "a/train").mkdir(parents=True)
    (tmp_path / "out/a-bn-0/checkpoints").mkdir(parents=True)
    write_run(tmp_path / "out", "a-finetune-0", 0.8)
    trained = []

    def train(tasks, recipe, out, overrides, quiet):
        assert not out.exists()
        trained.append((out.name, overrides[1], overrides[-2]))
        write_run(out.parent, out.name, 0.9)

    monkeypatch.setattr(bench.pk, "train", train)
    command = [str(tmp_path), "--methods", "bn", "--out", str(tmp_path / "out"), "--set", "optim.clip_norm=1"]
    assert bench.main(command) == 0
    assert trained == [("a-bn-0", 'adaptation={"method": "bn"}', "seed=0")]


@pytest.mark.parametrize("method", bench.METHODS)
def test_every_row_is_a_section_that_reads(method):
    assert bench.METHODS[method]["method"] in bench.ADAPTATIONS
    assert bench.ADAPTATIONS[bench.METHODS[method]["method"]].model_validate(bench.METHODS[method])


def test_rates_are_of_rows():
    assert set(bench.RATES) <= set(bench.METHODS)
