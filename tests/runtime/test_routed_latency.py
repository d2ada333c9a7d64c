"""Latency of a routed model: what is counted, by hand. The times themselves are in no test."""

import pytest
import torch

from perceptkit.compact.route_cost import RouteCost
from perceptkit.runtime.routed_latency import as_markdown, calls_within, macs_by_picture, percentiles


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


def test_table():
    times = {"p50": 1.0, "p95": 2.0, "p99": 3.25}
    row = {
        **dict.fromkeys(("full", "routed", "worst"), times),
        "predicted": 0.4,
        "saving": {"median": 0.3},
        "achieved": 0.75,
        "executors": {"segments": 90, "mask": 10},
    }
    text = as_markdown({"batch": {"8": row, "32": {**row, "achieved": None}}})
    assert "| 8 | 1.00, 2.00, 3.25 | " in text and "| 0.400 | 0.300 | 0.75 | segments 90, mask 10 |" in text
    assert "| 0.300 | - |" in text


def test_a_brief_measurement_has_as_many_calls_as_it_has_time_for():
    assert calls_within(3.0, 0.02) == 50  # each of three takes 20 ms
    assert calls_within(3.0, 1.0) == 20 and calls_within(3.0, 1e-6) == 100
