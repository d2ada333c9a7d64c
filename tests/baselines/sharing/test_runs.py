"""Runs of these methods are resumed with the same bits, and two ranks do what one process does."""

import json
import signal
import subprocess
import sys

import pytest

from tests.train.test_ranks import CLOSE, ROUTED_DRIVER, rows
from tests.train.test_resume import assert_same_tensors, drive, state

RECIPE = """\
version: 1
backbone: {name: test_resnet, weights: none}
heads: {channels: 16}
sharing: {method: %s}
stages:
  - {name: warmup, epochs: 1}
  - {name: retrain, epochs: 1}
optim: {name: adamw, lr: 3e-3, clip_norm: 5.0}
augment: {hflip: 0.5}
loader: {batch: 4, workers: 0}
seed: 3
"""


def files_of(small_run, tmp_path, method):
    recipe = tmp_path / "sharing_recipe.yaml"
    recipe.write_text(RECIPE % method, encoding="utf-8")
    return small_run[0], recipe


@pytest.mark.slow
@pytest.mark.parametrize("method", ["random, skips: 5", "stochastic_depth", "sluice"])
def test_killed_and_resumed_bit_for_bit(small_run, tmp_path, method):
    files = files_of(small_run, tmp_path, method)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert drive(files, whole) == 0
    for step in (4, 9):  # of 6 + 6
        assert drive(files, killed, step, 0.0) == -signal.SIGKILL
    assert drive(files, killed) == 0
    assert_same_tensors(state(whole, "best.pt"), state(killed, "best.pt"))
    names = ("policy.json", "artifact/model.safetensors")
    assert all((whole / name).read_bytes() == (killed / name).read_bytes() for name in names)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["stochastic_depth", "nddr", "sluice"])
def test_two_ranks_are_one_process_with_the_doubled_batch(small_run, tmp_path, method):
    tasks, recipe = map(str, files_of(small_run, tmp_path, method))
    driver, one, two = tmp_path / "driver.py", tmp_path / "one", tmp_path / "two"
    driver.write_text(ROUTED_DRIVER, encoding="utf-8")
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for launch, run, batch in (([], one, 4), (torchrun, two, 2)):
        arguments = [str(driver), tasks, recipe, str(run), f"loader.batch={batch}"]
        subprocess.run([sys.executable, *launch, *arguments], check=True, timeout=300)
    for kind, key in (("train", "loss"), ("val", "score")):
        ours, theirs = ([row[key] for row in rows(run, kind)] for run in (one, two))
        assert len(ours) == len(theirs) > 1
        assert theirs == pytest.approx(ours, rel=CLOSE, abs=CLOSE), key
    assert json.loads((two / "artifact/parity.json").read_text())["ok"]
