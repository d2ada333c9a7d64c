"""`data.on_bad: skip`: a run without the pictures that cannot be read, alone, resumed and on two ranks."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import perceptkit as pk
from perceptkit.api import Run
from perceptkit.cli import main
from perceptkit.errors import DataError, ResumeError
from perceptkit.train import loop
from perceptkit.train.leaving_out import in_words
from perceptkit.train.progress import Progress

TASKS = """\
name: t
data: {source: folder, root: data, image: "{split}/{id}.jpg", size: [32, 32], on_bad: skip}
tasks:
  seg: {type: segmentation, target: "seg/{split}/{id}.png", classes: 3}
"""
RECIPE = """\
backbone: {name: test_resnet, weights: none}
heads: {channels: 16}
sharing: {method: hard}
stages: [{name: retrain, epochs: 2}]
loader: {batch: 4, workers: 0}
"""
LEFT_OUT = {"train": ["a3", "a7"], "val": [], "test": ["a0"]}
TIMES = {"images_per_s", "data_wait", "peak_mib"}


@pytest.fixture
def files(tmp_path) -> tuple[Path, Path]:
    """Ten pictures of train, of which one is truncated and one empty; three of test, of which one label is neither."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 10), ("val", 4), ("test", 3)):
        for folder in (split, f"seg/{split}"):
            (tmp_path / "data" / folder).mkdir(parents=True)
        for i in range(count):
            picture = rng.integers(0, 256, (32, 32, 3), np.uint8)
            Image.fromarray(picture).save(tmp_path / f"data/{split}/a{i}.jpg")
            labels = Image.fromarray(picture[..., 0] // 100)
            labels.save(tmp_path / f"data/seg/{split}/a{i}.png")
    truncated = tmp_path / "data/train/a3.jpg"
    truncated.write_bytes(truncated.read_bytes()[:-200])
    (tmp_path / "data/train/a7.jpg").write_bytes(b"")
    (tmp_path / "data/seg/test/a0.png").write_bytes(b"no picture")
    (tmp_path / "t.yaml").write_text(TASKS)
    (tmp_path / "r.yaml").write_text(RECIPE)
    return tmp_path / "t.yaml", tmp_path / "r.yaml"


def rows(run: Path) -> list[dict[str, object]]:
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in TIMES} for line in lines]


def test_a_run_without_them_says_how_many_and_which(files, tmp_path, capsys):
    tasks, recipe = map(str, files)
    command = ["train", tasks, "--recipe", recipe, "--out", str(tmp_path / "run")]
    assert main(["check", tasks, "--recipe", recipe]) == 0
    assert main([*command, "--set", "data.on_bad=error"]) == 3
    assert "problem" in capsys.readouterr().err and not (tmp_path / "run").exists()
    assert main(command) == 0
    run = Run(tmp_path / "run")
    assert run.results["left_out"] == LEFT_OUT
    assert (
        max(row["step"] for row in rows(run.path)) == 4
    )  # two batches of four of the eight that are left, twice
    log = (run.path / "log.txt").read_text()
    assert "train: 2 pictures left out (data.on_bad: skip): a3 (" in log and "truncated" in log
    assert "test: 1 picture left out (data.on_bad: skip): a0 (" in log and "val:" not in log
    reasons = json.loads((run.path / "left_out.json").read_text())
    assert {split: list(of_split) for split, of_split in reasons.items()} == LEFT_OUT
    again = pk.evaluate(run.path, tasks, "test")["seg"]["miou"]
    assert again == pytest.approx(run.results["tasks"]["seg"]["metrics"]["miou"], abs=1e-6)


def test_without_the_key_training_stops_at_the_file(files, tmp_path):
    with pytest.raises(DataError, match=r"a[37]\.jpg: not a readable picture"):
        pk.train(*files, tmp_path / "run", overrides=["data.on_bad=error"], quiet=True)


def test_a_resumed_run_leaves_out_the_same(files, tmp_path, monkeypatch):
    whole = pk.train(*files, tmp_path / "whole", quiet=True)
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)
    step = Progress.step

    def dies(self, *arguments):
        step(self, *arguments)
        if self.done == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Progress, "step", dies)
        with pytest.raises(KeyboardInterrupt):
            pk.train(*files, tmp_path / "cut", quiet=True)
    shutil.copy(tmp_path / "data/train/a0.jpg", tmp_path / "data/train/a3.jpg")  # mended in the meantime
    cut = pk.train(out=tmp_path / "cut", resume=True, quiet=True)
    assert cut.results["left_out"] == LEFT_OUT
    assert rows(cut.path) == rows(whole.path)
    assert (cut.path / "log.txt").read_text().count("left out") == 2


def test_a_damaged_list_is_refused(files, tmp_path, monkeypatch):
    def dies(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Progress, "step", dies)
        with pytest.raises(KeyboardInterrupt):
            pk.train(*files, tmp_path / "run", quiet=True)
    (tmp_path / "run/left_out.json").write_text("{}")
    with pytest.raises(ResumeError, match=r"left_out.json is damaged"):
        pk.train(out=tmp_path / "run", resume=True, quiet=True)


def test_words():
    assert in_words({"train": {}, "val": {}, "test": {}}) == [
        "no picture had to be left out (data.on_bad: skip)"
    ]
    (line,) = in_words({"train": dict.fromkeys("abcde", "why")})
    assert line == (
        "train: 5 pictures left out (data.on_bad: skip): a (why); b (why); c (why) and 2 more, see left_out.json"
    )


@pytest.mark.slow
def test_two_ranks_leave_out_the_same(files, tmp_path):
    tasks, recipe = map(str, files)
    one, two = tmp_path / "one", tmp_path / "two"
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for launch, run, batch in (([], one, 4), (torchrun, two, 2)):
        command = ["-m", "perceptkit.cli", "train", tasks, "--recipe", recipe, "--out", str(run)]
        changes = ["--set", f"loader.batch={batch}"]
        subprocess.run([sys.executable, *launch, *command, *changes], check=True, timeout=300)
    assert (one / "left_out.json").read_text() == (two / "left_out.json").read_text()
    ours, theirs = (next(row for row in rows(run) if row["kind"] == "train") for run in (one, two))
    assert theirs["loss"] == pytest.approx(ours["loss"], rel=1e-3)
    assert json.loads((two / "results.json").read_text())["left_out"] == LEFT_OUT
