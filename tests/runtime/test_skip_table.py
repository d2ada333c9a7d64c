"""Sorting, runs and merging, worked out by hand."""

import random

import torch

from perceptkit.runtime.skip_table import decided, merged, neighbours, sort, to_host


def bits(*words):
    return tuple(tuple(letter == "1" for letter in word) for word in words)


def test_the_tables_of_the_docstring():
    batch = sort(bits("11", "01", "10", "01"))
    assert batch.policies == bits("11", "10", "01") or batch.policies == bits("11", "01", "10")
    assert sorted(batch.order) == [0, 1, 2, 3]
    assert [batch.order[row] for row in batch.back()] == [0, 1, 2, 3]
    for route in (0, 1):
        rows = {row for run in batch.runs(route) for row in range(*run)}
        gaps = {row for run in batch.runs(route, kept=False) for row in range(*run)}
        kept = {0: {0, 2}, 1: {0, 1, 3}}[route]
        assert {batch.order[row] for row in rows} == kept and rows | gaps == {0, 1, 2, 3}


def test_a_logit_of_nought_keeps_and_one_that_is_no_number_skips():
    logits_BR = torch.tensor([[0.0, -0.0, 1e-30, -1e-30], [float("inf"), -float("inf"), float("nan"), 2.0]])
    assert decided(logits_BR) == bits("1110", "1001") == to_host(logits_BR >= 0)


def test_equal_policies_are_neighbours_and_keep_their_order():
    batch = sort(bits("10", "01", "10", "01", "10"))
    assert batch.order == (0, 2, 4, 1, 3) and batch.rows == ((0, 3), (3, 5))
    assert batch.runs(0) == [(0, 3)] and batch.runs(0, kept=False) == [(3, 5)]
    assert batch.moved and not sort(bits("11", "11")).moved


def test_a_path_goes_to_the_nearest_policy():
    assert neighbours(bits("1111", "0000", "0111", "0001")) == bits("1111", "0111", "0001", "0000")


def test_sorting_leaves_fewer_runs_than_lexicographic_order():
    draw = random.Random(0)
    shorter = 0
    for _ in range(50):
        policies = sorted({tuple(draw.random() < 0.5 for _ in range(8)) for _ in range(12)}, reverse=True)

        def changes(path):
            return sum(
                a != b
                for one, two in zip(path, path[1:], strict=False)
                for a, b in zip(one, two, strict=True)
            )

        shorter += changes(neighbours(tuple(policies))) < changes(policies)
    assert shorter > 45


def test_runs_are_merged_where_launching_costs_more_than_the_gap():
    runs = [(0, 2), (3, 5), (9, 10)]
    assert merged(runs, lambda n: n) == runs  # launching is free, and so is nothing gained
    assert merged(runs, lambda n: 2 + n) == [(0, 5), (9, 10)]  # a gap of 1 against 2, one of 4 against 2
    assert merged(runs, lambda n: 10 + n) == [(0, 10)]
    assert merged([], lambda n: 1) == []
    assert merged(runs, lambda n: max(5, n)) == [(0, 5), (9, 10)]  # below 5 rows it takes the same
