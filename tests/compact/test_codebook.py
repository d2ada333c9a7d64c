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
    for count in (2, 3, 5, 9):
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
    worst = Codebook(torch.ones(1, 4, dtype=torch.bool), cost.double()).extra_cost(keep)

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


def test_a_book_of_one_is_the_union_of_what_is_kept():
    keep = bits("#...", "#...", ".##.")
    book = make_codebook(keep, torch.tensor([1.0, 2.0, 4.0, 8.0]), 1)
    assert as_text(book) == ["###."] and book.may_drop  # not all-ones: nobody keeps the last block
    assert book.extra_cost(keep) == pytest.approx((6 + 6 + 1) / 3) and book.dropped_cost(keep) == 0
    later = bits("#..#")
    assert book.assign(later).tolist() == [0] and book.dropped_cost(later) == 8
    everything = make_codebook(bits("#.", ".#"), torch.ones(2), 1)
    assert as_text(everything) == ["##"] and not everything.may_drop
    assert not make_codebook(keep, torch.ones(4), 2).may_drop


def test_nearest_by_hand():
    """With costs 1, 1 and 4 #.. and ##. differ by 1, #.. and .## by 6, ##. and .## by 5."""
    keep, cost = bits(*["#.."] * 4, *["##."] * 2, ".##"), torch.tensor([1.0, 1.0, 4.0])
    # alone #.. costs 2 x 1 + 6 = 8, ##. 4 x 1 + 5 = 9, .## 4 x 6 + 2 x 5 = 34
    book = make_codebook(keep, cost, 1, nearest=True)
    assert as_text(book) == ["#.."] and book.dropped_cost(keep) == pytest.approx((2 * 1 + 5) / 7)
    assert book.extra_cost(keep) == pytest.approx(1 / 7) and book.may_drop  # .## runs the first block
    # beside it .## leaves 2 x 1, ##. would leave 5
    book = make_codebook(keep, cost, 2, nearest=True)
    assert as_text(book) == ["#..", ".##"] and book.assign(keep).tolist() == [0] * 6 + [1]
    assert book.dropped_cost(keep) == pytest.approx(2 / 7)
    book = make_codebook(keep, cost, 9, nearest=True)
    assert as_text(book) == ["#..", "##.", ".##"] and book.dropped_cost(keep) == 0 == book.extra_cost(keep)


def test_members_are_exchanged_where_the_first_pick_was_not_the_best():
    """Alone ##.. is best (3 x 2 + 3 x 2 = 12, the ends 16). Beside an end it leaves 6, both ends leave 2 x 2."""
    keep = bits(*["...."] * 3, *["##.."] * 2, *["####"] * 3)
    assert as_text(make_codebook(keep, torch.ones(4), 1, nearest=True)) == ["##.."]
    book = make_codebook(keep, torch.ones(4), 2, nearest=True)
    assert as_text(book) == ["....", "####"]
    assert book.assign(bits("##..", "#...")).tolist() == [1, 0]  # equally near: the one that drops nothing


@pytest.mark.parametrize("seed", range(4))
def test_nearest_is_near_the_best_of_all_books(seed):
    """Against all pairs of wanted policies: no single exchange improves it, and it is seldom far off."""
    keep, cost = drawn(seed, pictures=14, blocks=5)
    distinct = torch.unique(keep, dim=0)

    def flips(pair):
        return sum(min(float(((w ^ m) * cost).sum()) for m in pair) for w in keep)

    book = make_codebook(keep, cost, 2, nearest=True)
    got, best = flips(book.policies_PR), min(flips(pair) for pair in combinations(distinct, 2))
    assert got == pytest.approx(14 * (book.extra_cost(keep) + book.dropped_cost(keep)))
    assert best <= got <= 1.1 * best
    for member in book.policies_PR:
        assert all(flips((member, other)) >= got - 1e-9 for other in distinct)


def test_many_distinct_policies_are_served_too():
    keep, cost = drawn(0, pictures=300, blocks=16)
    extra = [make_codebook(keep, cost, count).extra_cost(keep) for count in (1, 4, 16)]
    assert extra[0] > extra[1] > extra[2]


@pytest.mark.parametrize(("pictures", "count", "reason"), [(3, 0, "--policies"), (0, 2, "--pictures")])
def test_refused(pictures, count, reason):
    with pytest.raises(SpecError, match=reason):
        make_codebook(torch.ones(pictures, 2, dtype=torch.bool), torch.ones(2), count)
