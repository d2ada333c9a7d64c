"""routing.json and the latency in benchmark.json, whole, old and damaged."""

import json
import math

import pytest

from perceptkit.report.routing_file import RULES, read_latency
from perceptkit.report.run_folder import read_run
from tests.report.fake_routing import BLOCKS, LATENCY, make_routed_run
from tests.report.fake_run import make_run


@pytest.fixture
def path(tmp_path):
    return make_routed_run(tmp_path / "run")


def change(path, edit):
    found = json.loads((path / "routing.json").read_text())
    edit(found)
    (path / "routing.json").write_text(json.dumps(found))
    return read_run(path)


def test_a_whole_file(path):
    run = read_run(path)
    found = run.routing
    assert run.missing == () and found.blocks == BLOCKS and found.gamma == "8" and not found.is_static
    assert [row.rule for row in found.rows if row.tuned] == list(RULES)
    assert [row.rule for row in found.rows if not row.tuned] == list(RULES)[1:]
    assert found.row("learned", False) is None and found.row("all", True).usage == 1.0
    assert sum(found.counts) == len(found.pictures.ids) == 300
    assert math.isnan(found.pictures.full_quality["room"][0])  # null: no label
    assert found.picture(found.clusters[0].examples[0]).is_file()


def test_keep_rate_by_hand(path):
    def edit(found):
        found["test"]["policies"] = [
            {"keep": [1] * 15, "pictures": 3},
            {"keep": [1] + [0] * 14, "pictures": 1},
        ]

    assert change(path, edit).routing.keep_rate == [1.0] + [0.75] * 14


def test_rules_of_other_names_follow(path):
    found = change(path, lambda found: found["rows"].append({**found["rows"][0], "rule": "my_own"})).routing
    assert found.rows[-1].title == "my_own" and found.row("dist_k", True).title == "DistK"


def test_a_file_from_before_pictures_were_written_down(path):
    def edit(found):
        found["test"] = {"policies": found["test"]["policies"]}

    found = change(path, edit).routing
    assert found.pictures is None and found.clusters == () and found.difficulty == ()


@pytest.mark.parametrize(
    "edit",
    [
        lambda found: found["test"]["policies"].append({"keep": [1], "pictures": 1}),
        lambda found: found["test"].update(policies=[]),
        lambda found: found.pop("gamma"),
        lambda found: found["seen"].update(keep_rate=[0.5]),
    ],
)
def test_a_damaged_file_is_named(path, edit):
    run = change(path, edit)
    (line,) = run.missing
    assert run.routing is None and line.startswith("routing.json cannot be read")


def test_a_run_that_still_routes_misses_it_and_others_do_not(path, tmp_path):
    (path / "routing.json").unlink()
    assert read_run(path).missing == ("routing.json is not there yet: nothing on what pictures skip",)
    assert read_run(make_run(tmp_path / "other")).missing == ()


def test_latency(path, tmp_path):
    found = read_latency(path)
    assert list(found) == [1, 32] and list(found[1]) == ["full", "routed", "worst"]
    assert found[32]["routed"] == {"p50": 80.6, "p95": 86.0, "p99": 91.3}
    assert read_latency(tmp_path / "nowhere") == {}


@pytest.mark.parametrize(
    "text", ["[", "{}", '{"routing_latency": {"batch": {"1": {"full": {"p50": 1}}}}}', "[1]"]
)
def test_no_latency(path, text):
    (path / "benchmark/benchmark.json").write_text(text)
    assert read_latency(path) == {}


def test_latency_beside_the_run(path):
    (path / "benchmark/benchmark.json").rename(path / "benchmark.json")
    assert list(read_latency(path)) == list(map(int, sorted(LATENCY["batch"])))


def test_both_penalties_are_told_where_finetune_has_its_own(path):
    file = path / "routing.json"
    loaded = json.loads(file.read_text())
    for first, expected in ((None, "8"), (8.0, "8"), (1.5, "1.5, then 8")):
        file.write_text(json.dumps(loaded | {"route_gamma": first}))
        assert read_run(path).routing.gamma == expected
