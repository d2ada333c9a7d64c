"""The tables of tools/bench_dense_adaptation.py, of runs that are only written down."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))  # scripts, not a package

import bench_dense_adaptation as bench

INFO = {
    "seg": {"primary": "miou", "info": {"miou": {"higher_is_better": True}}},
    "depth": {"primary": "abs_rel", "info": {"abs_rel": {"higher_is_better": False}}},
}


def write_run(folder, miou, abs_rel, after, stored):
    folder.mkdir(parents=True)
    values = {"seg": {"miou": miou, "pixel_acc": 0.9}, "depth": {"abs_rel": abs_rel, "rmse": 1.0}}
    tasks = {name: {**INFO[name], "metrics": metrics} for name, metrics in values.items()}
    (folder / "results.json").write_text(json.dumps({"tasks": tasks, "train_seconds": 12.0}))
    old = {
        "before": {"seg": {"miou": 0.5, "pixel_acc": 0.9}, "depth": {"abs_rel": 0.2, "rmse": 1.0}},
        "after": after and {"seg": {"miou": after, "pixel_acc": 0.9}, "depth": {"abs_rel": 0.2, "rmse": 9.0}},
        "tasks": INFO,
    }
    bits = {"trunk": stored * 100, "router": 10, "base": 100}
    (folder / "adaptation.json").write_text(json.dumps({"old_domain": old, "bits": bits}))


def test_new_is_against_finetune_with_as_many_pictures_and_old_against_the_base(tmp_path, capsys):
    write_run(tmp_path / "dusk-50-finetune-0", miou=0.4, abs_rel=0.25, after=0.25, stored=1.0)
    write_run(tmp_path / "dusk-50-spottune-0", miou=0.44, abs_rel=0.2, after=None, stored=0.5)
    write_run(tmp_path / "dusk-200-spottune-0", miou=0.6, abs_rel=0.1, after=0.5, stored=0.5)
    assert bench.main([str(tmp_path), "--out", str(tmp_path), "--table"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "| dusk | 50 | finetune | +0.0 | -25.0 | 1.10 | 12 |" in lines  # (-50 % + 0) / 2
    assert "| dusk | 50 | spottune | +15.0 | +nan | 0.60 | 12 |" in lines  # (10 % + 20 %) / 2
    assert "| dusk | 200 | spottune |  | +0.0 | 0.60 | 12 |" in lines  # nothing to compare with
    assert "| dusk | 50 | spottune | 0.200 | 0.440 |" in lines


def test_seeds_are_compared_with_the_same_seed_and_spread(tmp_path):
    for seed, (ours, theirs) in enumerate([(0.44, 0.4), (0.66, 0.5)]):
        write_run(tmp_path / f"dusk-50-finetune-{seed}", miou=theirs, abs_rel=0.2, after=0.5, stored=1.0)
        write_run(tmp_path / f"dusk-50-taps-{seed}", miou=ours, abs_rel=0.2, after=0.5, stored=1.0)
    rows = [bench.row_of(path.parent) for path in tmp_path.glob("*/results.json")]
    table = bench.as_markdown(rows)
    gains = [5.0, 16.0]  # half of 10 % and of 32 %: depth is alike
    spread = pytest.approx((gains[1] - gains[0]) / 2**0.5, abs=0.05)
    row = next(line for line in table.splitlines() if "| taps |" in line).split("|")[4].split()
    assert float(row[0]) == pytest.approx(10.5) and float(row[2]) == spread
