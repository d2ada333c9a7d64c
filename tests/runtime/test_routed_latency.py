"""Latency of a routed model: what is counted, by hand, with a clock that says what it is told to."""

from functools import partial

import pytest
import torch

from perceptkit.compact.route_cost import RouteCost
from perceptkit.model.cost import measured_macs
from perceptkit.runtime import routed_latency as measuring
from perceptkit.runtime.routed_latency import (
    FEWEST_CALLS,
    WARMUP,
    as_markdown,
    brief_latency,
    calls_within,
    macs_by_picture,
    percentiles,
    routed_latency,
    static_latency,
)
from perceptkit.runtime.skip_cost import CostModel, Curve, NodeCost
from perceptkit.runtime.skipping import SkippingForward
from perceptkit.runtime.timing import interleave
from tests.compact.test_routed import some_router
from tests.runtime.test_executors import picture, routed


class Fake:
    """A router that keeps a block where the picture's first channel says so."""

    def keep(self, image_BCHW):
        return image_BCHW[:, :, 0, 0] > 0


def test_macs_of_a_picture_are_what_always_runs_the_router_and_what_it_keeps():
    routed = type("Routed", (), {"router": Fake()})()
    image = torch.tensor([[1.0, -1, -1], [1, 1, 1], [-1, -1, -1]])[:, :, None, None]
    cost = RouteCost(always=100, added_R=(10, 20, 40), router=7)
    assert macs_by_picture(routed, image, cost).tolist() == [117, 177, 107]
    assert cost.full == 170


def test_percentiles_are_milliseconds():
    found = percentiles([i / 1000 for i in range(101)])
    assert found == pytest.approx({"p50": 50, "p95": 95, "p99": 99})


@pytest.mark.parametrize(
    ("calls", "known"), [(100, {"p50", "p95", "p99"}), (99, {"p50", "p95"}), (19, {"p50"})]
)
def test_there_is_no_percentile_of_too_few_calls(calls, known):
    assert {name for name, value in percentiles([0.001] * calls).items() if value is not None} == known


def test_table():
    times = {"p50": 1.0, "p95": 2.0, "p99": 3.25}
    row = {
        **dict.fromkeys(("full", "routed", "worst"), times),
        "predicted": 0.4,
        "saving": {"median": 0.3},
        "achieved": 0.75,
        "executors": {"segments": 90, "mask": 10},
    }
    text = as_markdown(
        {"batch": {"8": row, "32": {**row, "achieved": None, "worst": {**times, "p99": None}}}}
    )
    assert "| 8 | 1.00, 2.00, 3.25 | " in text and "| 0.400 | 0.300 | 0.75 | segments 90, mask 10 |" in text
    assert "| 0.300 | - |" in text and "| 1.00, 2.00, - |" in text


def test_a_brief_measurement_has_as_many_calls_as_it_has_time_for():
    assert calls_within(3.0, 0.02) == 50  # each of three takes 20 ms
    assert calls_within(3.0, 1.0) == 20 and calls_within(3.0, 1e-6) == 100


@pytest.fixture(scope="module")
def half():
    """A model that keeps the same half of its blocks of every picture, and that policy."""
    model = routed(keep="all", chosen=("room",))
    count = len(model.plan.routed())
    model.router = some_router(count)
    policy = tuple(r < count // 2 for r in range(count))
    with torch.no_grad():
        model.router.decide.weight.zero_()
        model.router.decide.bias.copy_(torch.tensor([1.0 if keep else -1.0 for keep in policy]))
    return model, policy


@pytest.fixture
def measured(half, monkeypatch):
    """Sizes of batches that the cost model was measured for: static networks cost nothing, every node a second."""
    model, policy = half
    nodes = [NodeCost(node.route, Curve({1: 1.0})) for node in model.network.nodes]
    found = []

    def measure(network, size_HW, batches, repeats, networks):
        found.append(batches)
        return CostModel(nodes, Curve({1: 1.0}), static={static: Curve({1: 0.0}) for static in networks})

    monkeypatch.setattr(CostModel, "measure", measure)
    return found


def clock_of(seconds, calls):
    """Readings under which each call of a variant takes what `seconds` has for it by round."""
    now, names = 0.0, list(seconds)
    for i in range(-WARMUP, calls):
        shift = i % len(names)
        for name in names[shift:] + names[:shift]:
            yield now
            if i >= 0:
                now += seconds[name][i]
                yield now


def test_times_by_a_scripted_clock(half, measured, monkeypatch):
    model, _ = half
    seconds = {"full": [0.010] * 4, "routed": [0.006, 0.008, 0.004, 0.005], "worst": [0.012] * 4}
    ticks = clock_of(seconds, 4)
    monkeypatch.setattr(measuring, "interleave", partial(interleave, clock=lambda: next(ticks)))
    said = []
    cost = RouteCost(always=100, added_R=(40, 60, 50, 50), router=10)
    monkeypatch.setattr(measuring, "route_cost", lambda routed, size_HW: cost)
    monkeypatch.setattr(measuring, "measured_macs", lambda forward: 300)
    found = routed_latency(model, picture(5), (1,), calls=4, say=said.append)
    assert found["macs"] == 210 and found["macs_full"] == 300  # the first two blocks are kept
    assert (found["pictures"], found["calls"], list(found["batch"])) == (5, 4, ["1"])
    row = found["batch"]["1"]
    assert row["full"]["p50"] == pytest.approx(10) and row["worst"]["p50"] == pytest.approx(12)
    assert row["routed"]["p50"] == pytest.approx(5.5)
    assert row["saving"]["median"] == pytest.approx(0.45)  # of 0.4, 0.2, 0.6, 0.5
    assert row["predicted"] == pytest.approx(0.3) and row["achieved"] == pytest.approx(1.5)
    assert (
        row["executors"] == {"branch": 4 + WARMUP} and not measured
    )  # without a book nothing is to be chosen
    assert said == ["latency of 4 batches of 1, with the router and without"]
    assert next(ticks, None) is None  # nothing else was timed


def test_a_masked_time_is_no_saving(half, measured, monkeypatch):
    monkeypatch.setattr(
        measuring, "_as_loaded", lambda routed, device, _: SkippingForward(routed, executor="mask")
    )
    monkeypatch.setattr(measuring, "measured_macs", lambda forward: 10**12)
    (row,) = routed_latency(half[0], picture(3), (2,), calls=2)["batch"].values()
    assert row["executors"] == {"mask": 2 + WARMUP} and row["predicted"] > 0.5 and row["achieved"] is None


def test_the_executors_are_those_of_a_model_that_is_loaded(half, measured):
    model, policy = half
    for book, taken in (((policy,), "codebook"), ((), "branch"), (((False,) * len(policy),), "branch")):
        (row,) = routed_latency(model, picture(3), (1,), calls=2, policies=book)["batch"].values()
        assert row["executors"] == {taken: 2 + WARMUP}
    measured.clear()
    found = routed_latency(model, picture(3), (1, 2), calls=2, policies=(policy,))["batch"]
    assert all(row["executors"] == {"codebook": 2 + WARMUP} for row in found.values())
    assert measured == [[1, 2]]  # before anything is timed


def test_a_brief_measurement_is_of_single_pictures_and_of_the_same_executors(half, measured, monkeypatch):
    model, policy = half
    times = iter(range(10_000))
    monkeypatch.setattr(measuring, "interleave", partial(interleave, clock=lambda: float(next(times))))
    found = brief_latency(model, picture(3), seconds=1.0, policies=(policy,))
    assert found["calls"] == FEWEST_CALLS and list(found["batch"]) == ["1"]
    row = found["batch"]["1"]
    assert row["executors"] == {"codebook": FEWEST_CALLS + WARMUP} and row["saving"]["median"] == 0
    assert measured == [[1]]  # once, not for the trial and again


def test_it_is_timed_beside_the_network_that_it_was_made_from(half, measured):
    """Of a model whose router had blocks decided alike for all, `full` is not what is left of it."""
    model, _ = half
    host = routed("cifar10_resnet32", keep="all", chosen=("room",)).network
    found = routed_latency(model, picture(3), (1,), calls=2, host=host)
    with torch.no_grad():
        assert found["macs_full"] == measured_macs(lambda: host(picture(1)))
    assert found["batch"]["1"]["predicted"] == pytest.approx(1 - found["macs"] / found["macs_full"])


def test_a_model_that_became_static_is_timed_too(half):
    model, policy = half
    found = static_latency(model.static(policy), model.static([True] * len(policy)), picture(3), seconds=0.1)
    row = found["batch"]["1"]
    assert set(row) == {"full", "static", "predicted", "saving", "achieved"}
    assert (
        row["predicted"] == pytest.approx(1 - found["macs"] / found["macs_full"]) and row["predicted"] > 0.05
    )
    assert FEWEST_CALLS <= found["calls"] <= 100 and row["static"]["p50"] > 0
