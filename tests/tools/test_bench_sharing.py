"""tools/bench_sharing.py: what is run, what is not run again, and a tiny run of every method on the fixture."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))  # scripts, not a package

import bench_sharing as bench

from perceptkit.spec.load import load_recipe
from tests.report.fake_run import make_run

FRAMES = f"data.root={Path(__file__).parents[1] / 'fixtures' / 'doom'}"


@pytest.mark.parametrize("method", bench.METHODS)
def test_the_network_that_is_emitted_trains_as_long_as_all_others(method):
    recipe, changes = bench.METHODS[method]
    lengths = bench.stages_of(method, 6)
    stages = {stage.name: stage.epochs for stage in load_recipe(recipe, [*changes, *lengths]).spec.stages}
    expected = 2 + 3 + 6 if method == bench.LONG else 6  # all that adashare has
    assert stages["retrain"] + (stages["warmup"] if recipe == "fafs" else 0) == expected
    assert stages.get("search", 3) == 3


def test_random_wants_the_run_that_it_counts_in(tmp_path, capsys):
    with pytest.raises(SystemExit):
        bench.main(["--methods", "random", "--seeds", "3", "--out", str(tmp_path)])
    assert "random counts the skips of adashare, which has no run of seed 3" in capsys.readouterr().err


def test_what_is_finished_is_not_run_again(tmp_path, capsys, monkeypatch):
    for method in ("single", "hard"):
        for seed in (0, 1):
            make_run(tmp_path / f"{method}-s{seed}", method, seed=seed)
    monkeypatch.setattr(bench.subprocess, "run", lambda *a, **k: pytest.fail("it ran"))
    arguments = ["--methods", "single", "hard", "--seeds", "0", "1", "--out", str(tmp_path)]
    assert bench.main(arguments) == 0
    assert "delta-MTL" in capsys.readouterr().out
    assert (tmp_path / "comparison" / "comparison.md").is_file()


def test_a_run_that_failed_is_told_and_one_that_was_stopped_goes_on(tmp_path, capsys, monkeypatch):
    commands = []

    def run(command, **how):
        commands.append(command)
        return bench.subprocess.CompletedProcess(command, 1)

    monkeypatch.setattr(bench.subprocess, "run", run)
    (tmp_path / "hard-s0" / "checkpoints").mkdir(parents=True)
    (tmp_path / "hard-s0" / "checkpoints" / "last.pt").touch()
    (tmp_path / "single-s0").mkdir()
    methods = ["hard", "single", "adashare_0.7"]
    assert bench.main(["--methods", *methods, "--out", str(tmp_path), "--set", "seed=7"]) == 1
    single, hard, within = commands
    assert "budget={macs: 0.7}" in within and (tmp_path / "adashare_0.7-s0.log").is_file()
    assert single[-1] == "seed=7" and "--recipe" in single and not (tmp_path / "single-s0").is_dir()
    assert hard[3:] == ["train", "--resume", "--out", str(tmp_path / "hard-s0")]
    assert f"hard-s0 failed: {tmp_path / 'hard-s0'}.log says why" in capsys.readouterr().err


@pytest.mark.slow
def test_every_method_on_the_fixture(tmp_path, capsys):
    tiny = ["backbone.args={channels: [8, 8, 8, 8]}", "heads.channels=8", "loader.batch=2", FRAMES]
    methods = [m for m in bench.METHODS if not m.startswith("adashare_0.7")]  # its search wants more epochs
    arguments = ["--out", str(tmp_path / "runs"), "--epochs", "2", "--methods", *methods, "--set", *tiny]
    assert bench.main(arguments) == 0, [log.read_text() for log in tmp_path.glob("runs/*.log")]
    table = capsys.readouterr().out
    assert all(f"| {method}-s0 " in table for method in methods)
    assert "of single" in table and "this task alone" in table
