"""A codebook serves every picture with a superset of what it wants, at little extra cost."""

import math
from itertools import combinations, product

import pytest
import torch

from perceptkit.compact.codebook import Codebook, make_codebook
from perceptkit.errors import SpecError


def drawn(seed, pictures=40, blocks=6):
    generator = torch.Generator().manual_seed(seed)
    keep = torch.rand(pictures, blocks, generator=generator) < torch.rand(blocks, generator=generator)
    return keep, torch.randint(1, 9, (blocks,), generator=generator)


def bits(*rows):
    return torch.tensor([[sign == "#" for sign in row] for row in rows])


def as_text(book):
    return ["".join(".#"[keep] for keep in row) for row in book.policies_PR.tolist()]


@pytest.mark.parametrize("seed", range(8))
def test_no_wanted_block_is_dropped_even_of_pictures_never_seen(seed):
    keep, cost = drawn(seed)
    every = torch.tensor(list(product([False, True], repeat=6)))
    for count in (1, 2, 3, 5, 9):
        book = make_codebook(keep, cost, count)
        assert len(book.policies_PR) <= count and book.policies_PR.all(1).any()
        for wanted in (keep, every):
            assert not (wanted & ~book.policies_PR[book.assign(wanted)]).any()


@pytest.mark.parametrize("seed", range(8))
def test_the_cheapest_superset_serves(seed):
    keep, cost = drawn(seed)
    book = make_codebook(keep, cost, 5)
    prices = (book.policies_PR * cost).sum(1)
    for wanted, index in zip(keep, book.assign(keep), strict=True):
        fits = ~(wanted & ~book.policies_PR).any(1)
        assert prices[index] == prices[fits].min()


@pytest.mark.parametrize("seed", range(8))
def test_more_policies_never_cost_more_and_enough_cost_nothing(seed):
    keep, cost = drawn(seed)
    distinct = len(torch.unique(torch.cat([keep, torch.ones_like(keep[:1])]), dim=0))
    extra = [make_codebook(keep, cost, count).extra_cost(keep) for count in range(1, distinct + 3)]
    assert extra == sorted(extra, reverse=True)
    assert extra[distinct - 1] == 0 and extra[-1] == 0


@pytest.mark.parametrize("seed", range(6))
def test_greedy_saves_what_its_bound_promises(seed):
    """Against the best of all books of three, all-ones among them, by trying them all."""
    keep, cost = drawn(seed, pictures=12, blocks=4)
    every = list(product([False, True], repeat=4))
    worst = make_codebook(keep, cost, 1).extra_cost(keep)

    def extra(pair):
        rows = torch.tensor(sorted([*pair, every[-1]], key=lambda row: sum(cost[torch.tensor(row)])))
        return Codebook(rows, cost.double()).extra_cost(keep)

    best = min(extra(pair) for pair in combinations(every, 2))
    saved = worst - make_codebook(keep, cost, 3).extra_cost(keep)
    assert (1 - 1 / math.e) * (worst - best) <= saved <= worst - best + 1e-9


def test_by_hand():
    """Over all-ones, ##. saves one block for seven pictures, #.. two for three; then #.. one for three, .#. for two."""
    keep = bits(*["#.."] * 3, *[".#."] * 2, *["##."] * 2)
    book = make_codebook(keep, torch.ones(3), 2)
    assert as_text(book) == ["##.", "###"] and book.extra_cost(keep) == pytest.approx(5 / 7)
    book = make_codebook(keep, torch.ones(3), 3)
    assert as_text(book) == ["#..", "##.", "###"] and book.extra_cost(keep) == pytest.approx(2 / 7)
    assert book.assign(bits("...", ".#.", "..#")).tolist() == [0, 1, 2]


def test_a_union_that_nobody_wants_may_serve_many():
    keep = bits("#...", ".#..", "#...", ".#..")
    book = make_codebook(keep, torch.tensor([1.0, 1.0, 5.0, 5.0]), 2)
    assert as_text(book) == ["##..", "####"] and book.extra_cost(keep) == 1


def test_ties_are_broken_alike_whatever_the_order_of_pictures():
    keep, cost = drawn(3)
    order = torch.randperm(len(keep), generator=torch.Generator().manual_seed(0))
    for count in (2, 4):
        assert as_text(make_codebook(keep, cost, count)) == as_text(make_codebook(keep[order], cost, count))


def test_a_book_of_one():
    keep = bits("#..", "#..", ".##")
    assert as_text(make_codebook(keep, torch.ones(3), 1)) == ["###"]
    book = make_codebook(keep, torch.ones(3), 1, superset=False)
    assert as_text(book) == ["#.."] and book.assign(keep).tolist() == [0, 0, 0]


def test_many_distinct_policies_are_served_too():
    keep, cost = drawn(0, pictures=300, blocks=16)
    extra = [make_codebook(keep, cost, count).extra_cost(keep) for count in (1, 4, 16)]
    assert extra[0] > extra[1] > extra[2]


@pytest.mark.parametrize(("pictures", "count", "reason"), [(3, 0, "--policies"), (0, 2, "--pictures")])
def test_refused(pictures, count, reason):
    with pytest.raises(SpecError, match=reason):
        make_codebook(torch.ones(pictures, 2, dtype=torch.bool), torch.ones(2), count)
