"""A run that was killed and resumed ends with the bits of one that was not."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

KILL_AT = {
    "small_run": {"warmup": 9, "search": 23, "retrain": 39},
    "balanced_run": {"warmup": 9, "search": 23, "retrain": 39},
    "routed_run": {"warmup": 9, "route": 21, "finetune": 33},
    "fafs_run": {"warmup": 9, "retrain": 21},
    "levels_run": {"warmup": 9, "retrain": 21},
    "sampled_run": {
        "warmup": 9,
        "search": 24,
        "retrain": 39,
        "retrain, 2nd plan": 46,
        "retrain, 3rd plan": 64,
    },
}
"""Steps in the middle of an epoch of each train stage; 23 is the second step of a policy turn, and so is 24 where a
turn has two of them. Each of three sampled plans is retrained for twelve steps, from 31 on."""
TIMES = {"images_per_s", "data_wait", "peak_mib"}

DRIVER = """
import os, signal, sys
from pathlib import Path
from perceptkit import api
from perceptkit.train import loop
from perceptkit.train.progress import Progress

tasks, recipe, out, kill_at, save_seconds = sys.argv[1:]
loop.SAVE_SECONDS = float(save_seconds)
step = Progress.step

def counted(self, *arguments):
    step(self, *arguments)
    if self.done == int(kill_at):
        os.kill(os.getpid(), signal.SIGKILL)

Progress.step = counted
api.train(tasks, recipe, out, resume=Path(out).exists(), quiet=True)
"""


def drive(files: tuple[Path, Path], out: Path, kill_at: int = -1, save_seconds: float = 120.0) -> int:
    """Trains in a process of its own, which dies before step `kill_at`; its exit code."""
    command = [sys.executable, "-c", DRIVER, *map(str, (*files, out, kill_at, save_seconds))]
    return subprocess.run(command, timeout=300, check=False).returncode


def rows(run: Path) -> list[dict[str, object]]:
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in TIMES} for line in lines]


def assert_same_tensors(one: object, other: object, at: str = "") -> None:
    if isinstance(one, torch.Tensor):
        assert isinstance(other, torch.Tensor) and torch.equal(one, other), at
    elif isinstance(one, dict):
        assert isinstance(other, dict) and one.keys() == other.keys(), at
        for key in one:
            assert_same_tensors(one[key], other[key], f"{at}.{key}")
    elif isinstance(one, list | tuple):
        assert isinstance(other, list | tuple) and len(one) == len(other), at
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same_tensors(a, b, f"{at}.{i}")
    else:
        assert one == other or (one != one and other != other), at


def state(run: Path, name: str) -> dict[str, object]:
    loaded = torch.load(run / "checkpoints" / name, weights_only=True)
    assert isinstance(loaded, dict)
    loaded.pop("stage_seconds", None)
    return loaded


@pytest.mark.slow
@pytest.mark.parametrize("save_seconds", [0.0, 120.0], ids=["saved_every_step", "saved_every_epoch"])
@pytest.mark.parametrize("fixture", KILL_AT)
def test_killed_in_every_stage_and_resumed_bit_for_bit(fixture, tmp_path, save_seconds, request):
    files = request.getfixturevalue(fixture)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert drive(files, whole) == 0
    for stage, step in KILL_AT[fixture].items():
        assert drive(files, killed, step, save_seconds) == -signal.SIGKILL
        last = json.loads((killed / "metrics.jsonl").read_text().splitlines()[-1])
        assert last["stage"] == stage.partition(",")[0] and last["step"] <= step  # died where it should
        assert not (killed / "results.json").exists()
    assert drive(files, killed, -1, save_seconds) == 0

    for name in ("last.pt", "best.pt"):
        assert_same_tensors(state(whole, name), state(killed, name), name)
    assert (whole / "policy.json").read_bytes() == (killed / "policy.json").read_bytes()
    assert (whole / "artifact/model.safetensors").read_bytes() == (
        killed / "artifact/model.safetensors"
    ).read_bytes()
    results = [json.loads((run / "results.json").read_text()) for run in (whole, killed)]
    for part in ("tasks", "samples"):
        assert_same_tensors(results[0].get(part), results[1].get(part), part)
    validated = [[row for row in rows(run) if row["kind"] != "train"] for run in (whole, killed)]
    assert_same_tensors(validated[0], validated[1], "metrics")


@pytest.mark.slow
def test_interrupted_run_says_how_to_go_on_and_finishes(small_run, tmp_path):
    tasks, recipe = small_run
    out = tmp_path / "run"
    command = [sys.executable, "-m", "perceptkit.cli", "train"]
    process = subprocess.Popen(
        [*command, str(tasks), "--recipe", str(recipe), "--out", str(out)],
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not (out / "checkpoints/last.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert f"perceptkit train --resume --out {out}" in said and "Traceback" not in said

    def resume(*more: str) -> subprocess.CompletedProcess[str]:
        arguments = [*command, "--resume", "--out", str(out), *more]
        return subprocess.run(arguments, capture_output=True, text=True, check=False, env={**os.environ})

    changed = resume(str(tasks), "--recipe", str(recipe), "--set", "optim.lr=0.5")
    assert changed.returncode != 0 and "recipe.optim.lr: 0.003 -> 0.5" in changed.stderr
    done = resume()
    assert done.returncode == 0, done.stderr
    again = resume()
    assert again.returncode != 0 and "nothing to resume" in again.stderr and "Traceback" not in again.stderr
