"""What routing.json says of single pictures, and which of them are shown."""

import json
import math
import subprocess
import sys

import pytest
import torch
from PIL import Image

import perceptkit as pk
from perceptkit.data.sources import open_split
from perceptkit.spec.load import load_recipe, load_tasks
from perceptkit.tasks.table import build_tasks
from perceptkit.train import checkpoint, session
from perceptkit.train.routing_host import HOST
from perceptkit.train.routing_record import by_frequency, clusters, difficulty, least

T = torch.tensor
KEEP = T([[1, 1, 0], [0, 0, 0], [1, 1, 0], [0, 0, 1], [1, 1, 0], [0, 0, 0]]).bool()


class Rooms:
    labels = ("attic", "cellar", "hall")


def test_policies_by_frequency():
    keep_UR, policy_N, count_U = by_frequency(KEEP)
    assert keep_UR.int().tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]
    assert policy_N.tolist() == [0, 1, 0, 2, 0, 1] and count_U.tolist() == [3, 2, 1]


@pytest.mark.parametrize(
    "values, count, expected",
    [
        ([3, 1, 2, 4], 2, [1, 2]),
        ([1, 1, 1, 1, 1, 2], 3, [0, 2, 4]),  # from all over, not the first three
        ([1, 1, 2, 2], 3, [0, 1, 2]),
        ([5], 3, [0]),
        ([], 2, []),
        ([1, 2], 0, []),
    ],
)
def test_least(values, count, expected):
    assert least(range(len(values)), values, count) == expected


def test_difficulty_by_class():
    quality = [0.5, 0.9, 0.7, 0.1, 0.3, math.nan, 0.2]
    class_N = {"room": T([0, 0, 0, 2, 2, -1, 0])}
    (attic, hall) = difficulty({"room": quality}, class_N, {"room": Rooms()})
    told = {"by": "quality", "task": "room", "classes": 2}
    assert attic == told | {"class": "attic", "easiest": [1, 2], "hardest": [6, 0]}
    assert hall == told | {"class": "hall", "easiest": [4], "hardest": [3]}


def test_of_many_classes_the_first_ten_are_there_with_how_many_there_are():
    rooms = type("Rooms", (), {"labels": tuple(f"room {i}" for i in range(13))})()
    quality = {"room": [n / 26 for n in range(26)]}
    groups = difficulty(quality, {"room": torch.arange(26) // 2 % 13}, {"room": rooms})
    assert [group["class"] for group in groups] == [f"room {i}" for i in range(10)]
    assert {group["classes"] for group in groups} == {13}


def test_difficulty_over_all_where_a_task_has_no_classes():
    quality = {"depth": [0.1, 0.9, 0.4, math.nan], "seg": [0.5, math.nan, 0.4, math.nan]}
    (everything,) = difficulty(quality, {}, dict.fromkeys(quality))
    assert everything == {"by": "quality", "task": None, "class": None, "easiest": [1], "hardest": [0]}


def test_clusters_of_few_policies():
    macs_N = KEEP.double().sum(1) * 10 + 5
    most, second, last = clusters(KEEP, KEEP.double().mean(1), macs_N)
    assert most == {
        "keep": [1, 1, 0], "keep_rate": [1.0, 1.0, 0.0], "policies": 1, "pictures": 3, "usage": pytest.approx(2 / 3),
        "macs": 25.0, "examples": [0, 2, 4],
    }  # fmt: skip
    assert (second["keep"], second["examples"]) == ([0, 0, 0], [1, 5])
    assert (last["keep"], last["examples"]) == ([0, 0, 1], [3])


def test_many_policies_are_grouped_and_shown_by_what_is_nearest_to_their_centre():
    keep_NR = (torch.rand(200, 8, generator=torch.Generator().manual_seed(0)) < 0.5).bool()
    found = clusters(keep_NR, keep_NR.double().mean(1), keep_NR.double().sum(1))
    assert len(found) == 6 and sum(row["pictures"] for row in found) == 200
    for row in found:
        away = [
            sum(a != b for a, b in zip(keep_NR[n].int().tolist(), row["keep"], strict=True))
            for n in row["examples"]
        ]
        assert len(away) == 5 and min(away) == 0 and row["policies"] > 1
    assert clusters(keep_NR, keep_NR.double().mean(1), keep_NR.double().sum(1)) == found


@pytest.mark.slow
def test_a_run_writes_its_table_and_its_pictures(routed_run, tmp_path):
    tasks, recipe = routed_run
    changes = [
        "routing.gamma=0.05",
        "routing.router.keep=0.55",
        "routing.compare_epochs=0",
        "routing.measure_latency=false",
        "data.count.test=20",
    ]
    run = pk.train(tasks, recipe, tmp_path / "run", overrides=changes, quiet=True)
    assert not (run.path / "routing_latency.json").exists()
    routing = json.loads((run.path / "routing.json").read_text())
    found, pictures = routing["test"], routing["test"]["pictures"]
    spec = load_tasks(str(tasks), changes[4:]).spec
    source = open_split(spec, build_tasks(spec), "test")
    assert pictures["id"] == list(source.ids)
    for key in ("policy", "usage", "macs"):
        assert len(pictures[key]) == 20
    learned, everything = routing["rows"][0], routing["rows"][2]
    assert (learned["rule"], everything["rule"]) == ("learned", "all")
    assert sum(pictures["usage"]) / 20 == pytest.approx(learned["usage"], abs=1e-4)
    assert sum(pictures["macs"]) / 20 == pytest.approx(learned["macs"], rel=1e-6)
    for n, policy in enumerate(pictures["policy"]):
        keep = found["policies"][policy]["keep"]
        cost = sum(cost for cost, kept in zip(routing["cost"], keep, strict=True) if kept)
        assert pictures["usage"][n] == pytest.approx(cost / sum(routing["cost"]), abs=1e-4)
    for quality in (pictures["quality"], pictures["full_quality"]):
        assert list(quality) == list(spec.tasks)
        assert all(
            len(column) == 20 and all(0 <= q <= 1 for q in column if q is not None)
            for column in quality.values()
        )
    shown = {n for row in found["clusters"] for n in row["examples"]}
    shown |= {n for row in found["difficulty"] for end in ("easiest", "hardest") for n in row[end]}
    assert {path.name for path in (run.path / "routing").iterdir()} == {f"{n}.png" for n in shown}
    with Image.open(run.path / f"routing/{min(shown)}.png") as saved:
        assert saved.size == (32, 32) and saved.tobytes() == source.load(min(shown)).image.tobytes()


@pytest.mark.slow
def test_two_ranks_write_one_table(routed_run, tmp_path):
    """Three pictures, so that one rank has more of them; each has the quality that the host gives it."""
    tasks, recipe = map(str, routed_run)
    run = tmp_path / "run"
    changes = ["routing.compare_epochs=0", "data.count.test=3", "loader.batch=2", "stages.warmup.epochs=1"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    train = ["-m", "perceptkit.cli", "train", tasks, "--recipe", recipe, "--out", str(run), "--set", *changes]
    subprocess.run([*torchrun, *train], check=True, timeout=300)
    pictures = json.loads((run / "routing.json").read_text())["test"]["pictures"]
    specs = session.Specs(load_tasks(tasks, changes[1:2]).spec, load_recipe(recipe, []).spec, "", "")
    training = session.prepare(specs, tmp_path / "other", resume=False, quiet=True)
    host = training.supernet.eval()
    host.load_state_dict(checkpoint.load(run / HOST)[0]["supernet"])
    source = open_split(specs.tasks, training.tasks, "test")
    with torch.no_grad():
        for n, batch in enumerate(training.loader(source, range(3), train=False, batch=1)):
            outputs = host(batch.image_BCHW, training.plan)
            assert batch.ids == [pictures["id"][n]]
            for name, task in training.tasks.items():
                expected = task.quality(outputs[name], batch.targets[name]).item()
                found = pictures["full_quality"][name][n]
                assert found == pytest.approx(expected, abs=2e-4) if expected == expected else found is None
