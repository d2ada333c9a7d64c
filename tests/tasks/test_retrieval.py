"""recall@k and MAP@R by hand, against every order of ties, and against pytorch-metric-learning."""

from itertools import permutations

import pytest
import torch
from torch.nn import functional as F

from perceptkit.tasks.retrieval import RetrievalMetric, in_order, map_at_r, recall_at, retrieval


def on_circle(*degrees: float) -> torch.Tensor:
    angle = torch.deg2rad(torch.tensor(degrees))
    return torch.stack([angle.cos(), angle.sin()], 1)


def test_by_hand():
    # a at 0, 10 and 80 degrees, b at 30 and 70, c alone at 200
    vector, ids = on_circle(0, 10, 80, 30, 70, 200), torch.tensor([7, 7, 7, 3, 3, 5])
    found = retrieval(vector, ids)
    # nearest of   0: 10 a right    10: 0 a right (30 b is farther)    80: 70 b wrong
    #             30: 10 a wrong    70: 80 a wrong                    200: is no query
    assert found["recall@1"].item() == pytest.approx(2 / 5)
    # five others: all are among them
    assert found["recall@5"].item() == 1
    # R = 2    0: 10 a, 30 b: (1 + 0)/2    10: 0 a, 30 b: 1/2    80: 70 b, 30 b: 0
    # R = 1   30: 10 a: 0                  70: 80 a: 0
    assert found["map@r"].item() == pytest.approx((1 / 2 + 1 / 2) / 5)


def test_precision_counts_only_where_it_is_right():
    # the query at 0 has R = 3: right, wrong, right -> (1 + 0 + 2/3) / 3
    vector, ids = on_circle(0, 10, 20, 30, 90), torch.tensor([1, 1, 2, 1, 1])
    similarity, same = vector[:1] @ vector.T, (ids == 1)[None]
    similarity[0, 0], same[0, 0] = -torch.inf, False
    assert map_at_r(similarity, same, 4).item() == pytest.approx((1 + 2 / 3) / 3)


def test_same_as_the_library():
    from pytorch_metric_learning.distances import CosineSimilarity
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
    from pytorch_metric_learning.utils.inference import CustomKNN

    generator = torch.Generator().manual_seed(0)
    vector = F.normalize(torch.randn(60, 4, generator=generator, dtype=torch.float64), dim=1)
    ids = torch.randint(0, 9, (60,), generator=generator)
    names = ("precision_at_1", "mean_average_precision_at_r")
    calculator = AccuracyCalculator(include=names, k="max_bin_count", knn_func=CustomKNN(CosineSimilarity()))
    theirs, ours = calculator.get_accuracy(vector, ids), retrieval(vector, ids)
    assert ours["recall@1"].item() == pytest.approx(theirs["precision_at_1"])
    assert ours["map@r"].item() == pytest.approx(theirs["mean_average_precision_at_r"])


@pytest.mark.parametrize("right", [(0, 2), (1, 3), (2, 3), (0, 1, 2), (3,)])
def test_ties_are_the_mean_over_their_orders(right):
    # one picture that is nearer, four that are tied
    similarity = torch.tensor([[0.9, 0.5, 0.5, 0.5, 0.5]])
    same = torch.zeros(1, 5, dtype=torch.bool)
    same[0, list(right)] = True
    orders = [[0, *order] for order in permutations(range(1, 5))]
    ranked = torch.stack([same[0, order] for order in orders]).double()
    for k in (1, 2, 3):
        expected = (ranked[:, :k].sum(1) > 0).double().mean()
        assert recall_at(similarity, same, k).item() == pytest.approx(expected.item())
    R = len(right)
    precision = ranked.cumsum(1) / torch.arange(1, 6) * ranked
    for places in range(R, 6):  # a group that is cut off too
        assert map_at_r(similarity, same, places).item() == pytest.approx(
            precision[:, :R].sum(1).div(R).mean().item()
        )


def test_constant_embedding_finds_by_chance():
    ids = torch.tensor([0, 0, 0, 1, 1, 2])
    found = retrieval(torch.eye(1, 8).expand(6, 8), ids)
    assert found["recall@1"].item() == pytest.approx((3 * 2 / 5 + 2 * 1 / 5) / 5)
    shuffled = retrieval(torch.eye(1, 8).expand(6, 8), ids[torch.tensor([3, 0, 5, 1, 4, 2])])
    for name, value in shuffled.items():
        assert value.item() == pytest.approx(found[name].item())


def test_without_a_pair_there_is_nothing_to_say():
    assert all(value.isnan() for value in retrieval(on_circle(0, 10), torch.tensor([0, 1])).values())
    assert all(value.isnan() for value in RetrievalMetric().compute().values())


def test_metric_leaves_unlabelled_pictures_out():
    metric, plain = RetrievalMetric(), retrieval(on_circle(0, 10, 80), torch.tensor([0, 0, 1]))
    metric.update(on_circle(0, 5), torch.tensor([0, -1]))
    metric.update(on_circle(10, 80), torch.tensor([0, 1]))
    assert metric.compute() == plain


def test_quality_by_hand():
    vector, ids = on_circle(0, 10, 80, 30, 70, 20), torch.tensor([7, 7, 7, 3, 5, -1])
    quality = in_order(vector @ vector.T, ids)
    # 0: positives 10, 80; negatives 30, 70: 10 before both, 80 before none -> 2/4
    # 10: 0 before both, 80 before none; 80: 0 and 10 behind both
    assert quality[:3].tolist() == pytest.approx([1 / 2, 1 / 2, 0])
    assert quality[3:].isnan().all()  # no other of its id, or no id
    assert in_order(torch.ones(3, 3), torch.tensor([0, 0, 1])).tolist()[:2] == [0.5, 0.5]
