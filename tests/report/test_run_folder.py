"""A run folder is read as far as it goes; what is missing or damaged is named."""

import json
import math
from pathlib import Path

import pytest

from perceptkit.errors import SpecError
from perceptkit.report.run_folder import Cost, MetricInfo, Price, read_run
from tests.report.fake_run import BLOCKS, STAGES, TASKS, make_run

FILES = [
    "metrics.jsonl", "results.json", "cost.json", "policy.json", "predictions/index.json", "resolved.yaml",
    "env.json",
]  # fmt: skip


def test_a_finished_run(finished):
    assert finished.missing == () and finished.finished
    assert finished.name == "finished" and finished.tasks == list(TASKS)
    assert (finished.method, finished.backbone, finished.stages) == ("adashare", "resnet18", STAGES)


def test_results(finished):
    results = finished.results
    assert (results.split, results.seed) == ("test", 0)
    assert results.train_seconds == sum(results.stage_seconds.values()) == 84.0 + 161.5 + 231.8
    depth = results.tasks["depth"]
    assert (depth.type, depth.primary) == ("depth", "abs_rel")
    assert depth.info["rmse"] == MetricInfo(higher_is_better=False, unit="m")
    assert depth.higher_is_better["delta1"] is True
    assert results.metrics["depth"]["rmse"] == 0.47 and results.constant["depth"]["rmse"] == 1.273


def test_a_metric_of_null_is_nan(run_of):
    path = run_of("run").path
    _edit(path / "results.json", lambda found: found["tasks"]["seg"]["metrics"].update(miou=None))
    assert math.isnan(read_run(path).results.metrics["seg"]["miou"])


def test_cost(finished):
    cost = finished.cost
    assert isinstance(cost, Cost) and cost.input_CHW == (3, 64, 64)
    assert list(cost.rows) == ["compact", "hard_shared", "single_task_nets"]
    assert cost.rows["hard_shared"] == Price(params=3_127_904, macs=371_220_480, backbone_macs=41_032_080)
    assert cost.per_task_macs["depth"] == 88_412_160 + 3_100_000


def test_plan_and_log(finished):
    assert finished.plan.tasks == tuple(TASKS) and finished.plan.blocks == BLOCKS
    assert finished.plan.row("edges") == (True,) * 4 + (False,) * 4
    assert {kind: len(finished.of_kind(kind)) for kind in ("train", "val", "policy")} == {
        "train": 6 * 28, "val": 28, "policy": 8
    }  # fmt: skip


def test_examples_are_paths_into_the_run(finished):
    assert [example.id for example in finished.examples] == ["0000", "0001", "0002", "0003"]
    drawn = finished.examples[0].tasks["depth"]
    assert drawn.label.is_file() and drawn.prediction.is_file() and finished.examples[0].image.is_file()
    assert finished.examples[2].tasks["keypoints"].label is None


def test_an_index_never_reaches_outside_its_folder(run_of):
    path = run_of("run").path
    _edit(path / "predictions/index.json", lambda found: found[0].update(image="../../../etc/passwd"))
    assert read_run(path).examples[0].image == path / "predictions/passwd"


def test_a_run_that_still_trains(run_of):
    run = run_of("run", upto="search")
    assert run.results is run.cost is run.plan is None and run.examples == () and not run.finished
    # what is not measured yet is known from the specs
    assert (run.method, run.backbone, run.tasks) == ("adashare", "resnet18", list(TASKS))
    assert {line.partition(" ")[0] for line in run.missing} == set(FILES[1:5])
    assert all("is not there yet" in line for line in run.missing)


def test_a_log_cut_short_gives_its_whole_rows(run_of):
    run = run_of("run")
    log = run.path / "metrics.jsonl"
    log.write_text(log.read_text()[:-20])
    assert read_run(run.path).rows == run.rows[:-1]


def test_rows_that_do_not_say_where_they_belong_are_left_out(run_of):
    run = run_of("run")
    with (run.path / "metrics.jsonl").open("a") as log:
        for row in (
            {"kind": "train"},
            [1, 2],
            {**run.rows[-1], "epoch": "last"},
            {**run.rows[-1], "step": None},
        ):
            log.write(json.dumps(row) + "\n")
    assert read_run(run.path).rows == run.rows


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(run_of, name):
    path = run_of("run").path
    (path / name).unlink()
    (line,) = read_run(path).missing
    assert line.startswith(f"{name} is not there yet: ")


@pytest.mark.parametrize("damage", [b"[1, 2", b'"text"', b"[[]]", b"\0", b"\xff\xfe\x00"])
@pytest.mark.parametrize("name", FILES[1:])
def test_a_damaged_file_is_named_and_the_rest_is_read(tmp_path, name, damage):
    path = make_run(tmp_path / "run", tasks=("room",))
    whole = read_run(path)
    (path / name).write_bytes(damage)
    run = read_run(path)
    (line,) = run.missing
    assert line.startswith(f"{name} cannot be read (")
    assert run.rows == whole.rows and run.tasks == ["room"] and run.finished


@pytest.mark.parametrize("name", FILES[1:-1])
def test_a_file_that_lacks_everything_is_named(tmp_path, name):
    path = make_run(tmp_path / "run", tasks=("room",))
    (path / name).write_text("{}")
    (line,) = read_run(path).missing
    assert line.startswith(f"{name} cannot be read (")


def test_a_log_that_is_no_text_is_named(run_of):
    path = run_of("run").path
    (path / "metrics.jsonl").write_bytes(b"\xff\xfe")
    (line,) = read_run(path).missing
    assert line.startswith("metrics.jsonl cannot be read (UnicodeDecodeError")


def test_without_specs_and_results_the_plan_names_the_tasks(run_of):
    path = run_of("run").path
    (path / "results.json").unlink()
    (path / "resolved.yaml").unlink()
    run = read_run(path)
    assert run.tasks == list(TASKS) and run.method == run.backbone == "" and run.stages == {}


def test_no_folder(tmp_path):
    with pytest.raises(SpecError, match="no such run folder: .*nothing"):
        read_run(tmp_path / "nothing")


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SpecError, match="no such run folder: .*file"):
        read_run(tmp_path / "file")


def test_a_folder_that_is_no_run(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(
        SpecError, match="is not a run folder: it holds none of resolved.yaml, metrics.jsonl, res"
    ):
        read_run(tmp_path)


def _edit(file: Path, change) -> None:
    found = json.loads(file.read_text())
    change(found)
    file.write_text(json.dumps(found))
