"""Interleaved timing."""

import time

import pytest

from perceptkit.runtime.timing import Spread, interleave, speedup, spread


def test_quartiles_by_hand():
    assert spread([5.0, 1.0, 3.0, 2.0, 4.0]) == Spread(2.0, 3.0, 4.0)
    assert spread([7.0]) == Spread(7.0, 7.0, 7.0)
    assert spread([7.0]).to_dict() == {"q1": 7.0, "median": 7.0, "q3": 7.0}


def test_a_slow_round_cancels_out():
    # twice as fast in every round, though the last round took ten times as long
    assert speedup([2.0, 4.0, 20.0], [1.0, 2.0, 10.0]) == Spread(2.0, 2.0, 2.0)


def test_variants_are_interleaved_and_their_order_changes():
    ran, ticks = [], iter(range(1000))
    variants = {name: lambda name=name: ran.append(name) for name in "abc"}
    seconds = interleave(variants, rounds=3, warmup=1, clock=lambda: float(next(ticks)))
    assert seconds == {"a": [1.0] * 3, "b": [1.0] * 3, "c": [1.0] * 3}  # the clock is read twice per call
    rounds = ["".join(ran[i : i + 3]) for i in range(0, 12, 3)]
    assert rounds == ["cab", "abc", "bca", "cab"]


def test_seconds_are_seconds():
    found = interleave({"sleep": lambda: time.sleep(0.02)}, rounds=2, warmup=0)
    assert all(0.02 <= second < 1 for second in found["sleep"])


def test_nothing_is_timed_without_rounds():
    assert interleave({"a": lambda: pytest.fail("ran")}, rounds=0, warmup=0) == {"a": []}
