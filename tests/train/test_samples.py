"""Sampled plans as data: counted, queued, chosen, saved."""

import json
import math

from perceptkit.model.plan import Plan
from perceptkit.train.samples import Samples, distinct


def plan(*rows: str) -> Plan:
    return Plan.from_keep(["a", "b"], ["x", "y"], [[mark == "1" for mark in row] for row in rows])


ONE, OTHER = plan("11", "10"), plan("01", "10")


def test_plans_alike_are_one_that_counts_more():
    assert distinct([ONE, OTHER, ONE, plan("11", "10")]) == ([ONE, OTHER], [3, 1])


def test_the_best_score_on_val_is_chosen():
    samples = Samples([ONE, OTHER], [3, 1], [2.0, 1.0], [0, 1])
    assert (samples.drawn, samples.chosen) == (4, None)
    samples.scores = {0: 0.4, 1: 0.5}
    assert samples.choose() == samples.chosen == 1
    samples.scores = {0: 0.5, 1: 0.5}
    assert samples.choose() == 0
    samples.scores = {0: math.nan, 1: -0.5}
    assert samples.choose() == 1
    samples.scores = {0: math.nan, 1: math.nan}
    assert samples.choose() == 0


def test_a_checkpoint_holds_all_of_it():
    samples = Samples([ONE, OTHER], [3, 1], [2.0, 1.0], [1], {1: 0.5}, 1)
    assert Samples.from_state(samples.state()) == samples
    assert json.dumps(samples.state())
