"""Embedding: loss by hand, what is left out, weights of the loss, ids, pictures."""

import math
import pickle
from typing import get_args

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from perceptkit.errors import DataError, SpecError
from perceptkit.spec.metric_learning import REFUSED_LOSSES, REFUSED_MINERS, LossName, MinerName
from perceptkit.spec.tasks_file import EmbeddingSpec
from perceptkit.tasks.embedding import FIRST_UNSEEN, Embedding

NEED = {"RankedListLoss": {"margin": 0.4, "Tn": 10}}


def make(ids=("a", "b", "c"), **keys) -> Embedding:
    spec = EmbeddingSpec.model_validate({"type": "embedding", "dims": 4, **keys})
    return Embedding("place", spec, list(ids))


def unit(*rows) -> torch.Tensor:
    return F.normalize(torch.tensor(rows, dtype=torch.float32), dim=1)


def some(batch=8) -> torch.Tensor:
    return F.normalize(torch.randn(batch, 4, generator=torch.Generator().manual_seed(0)), dim=1)


def test_loss_by_hand():
    # contrastive: mean over positive pairs of distance, and over negative ones of what lacks to the margin
    task = make(loss={"name": "ContrastiveLoss", "args": {"neg_margin": 1.5}})
    output = unit([1, 0, 0, 0], [0, 1, 0, 0], [1, 1, 0, 0])
    near = math.sqrt(2 - math.sqrt(2))
    # positive: 0-1 at sqrt 2, both ways; negative: 0-2 and 1-2 at `near`
    assert task.loss(output, torch.tensor([0, 0, 1])).item() == pytest.approx(math.sqrt(2) + 1.5 - near)


def test_multi_similarity_by_hand():
    task = make()
    output = unit([1, 0, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0])
    positive, negative = math.log1p(math.exp(-2 * (0 - 0.5))) / 2, math.log1p(math.exp(50 * (1 - 0.5))) / 50
    far = math.log1p(math.exp(50 * (0 - 0.5))) / 50
    alone = math.log1p(math.exp(50 * 0.5) + math.exp(-50 * 0.5)) / 50
    expected = (positive + far + positive + negative + alone) / 3
    assert task.loss(output, torch.tensor([0, 0, 1])).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "name", ["MultiSimilarityLoss", "TripletMarginLoss", "ArcFaceLoss", "ProxyAnchorLoss"]
)
def test_unlabelled_pictures_change_nothing(name):
    task, ids = make(loss={"name": name}), torch.tensor([0, 1, 0, 1, 2, 2, 0, 1])
    output = some().requires_grad_()
    (alone,) = torch.autograd.grad(task.loss(output, ids), output)
    more = torch.cat([some(), some(3)]).requires_grad_()
    loss = task.loss(more, torch.cat([ids, torch.tensor([-1, -1, -1])]))
    assert torch.equal(loss, task.loss(output, ids))
    (beside,) = torch.autograd.grad(loss, more)
    assert torch.equal(beside[:8], alone) and not beside[8:].any()


def test_nothing_labelled_is_a_zero_with_a_gradient():
    output = some().requires_grad_()
    loss = make().loss(output, torch.full((8,), -1))
    loss.backward()
    assert loss.item() == 0 and not output.grad.any()


def test_one_picture_of_each_id_is_no_error():
    task = make(loss={"name": "TripletMarginLoss"}, miner={"name": "TripletMarginMiner"})
    output = some(3).requires_grad_()
    task.loss(output, torch.tensor([0, 1, 2])).backward()
    assert not output.grad.any()


def test_the_miner_chooses():
    output, ids = some(), torch.tensor([0, 1, 0, 1, 2, 2, 0, 1])
    loss = {"name": "TripletMarginLoss", "args": {"margin": 0.2}}
    hard = make(loss=loss, miner={"name": "BatchHardMiner"})
    from pytorch_metric_learning import losses, miners

    expected = losses.TripletMarginLoss(margin=0.2)(output, ids, miners.BatchHardMiner()(output, ids))
    assert hard.loss(output, ids).item() == pytest.approx(expected.item())
    assert hard.loss(output, ids).item() != pytest.approx(make(loss=loss).loss(output, ids).item())


@pytest.mark.parametrize("name", get_args(LossName))
def test_every_loss_can_be_learned_from(name):
    task = make(loss={"name": name, "args": NEED.get(name, {})})
    for step in range(3):
        output = some(12).roll(step, dims=1).requires_grad_()
        loss = task.loss(output, torch.arange(12) % 3)
        loss.backward()
        assert loss.isfinite() and output.grad.isfinite().all()


@pytest.mark.parametrize("name", get_args(LossName))
@pytest.mark.parametrize("ids", [[0, 1, 2], [0, 1], [1, 1, 1], [2]])
def test_every_loss_is_a_number_where_pairs_are_few(name, ids):
    task = make(loss={"name": name, "args": NEED.get(name, {})})
    output = some(len(ids)).requires_grad_()
    loss = task.loss(output, torch.tensor(ids))
    loss.backward()
    assert loss.isfinite() and output.grad.isfinite().all()


def test_the_dynamic_margin_goes_on_where_it_was():
    """Its histogram is of all batches so far: it belongs into checkpoints, and no trial is in it."""
    task, ids = make(loss={"name": "DynamicSoftMarginLoss"}), torch.arange(8) % 3
    assert not task.loss_module.state_dict()["loss.hist_"].any()
    task.loss(some(), ids)
    kept = {name: value.clone() for name, value in task.loss_module.state_dict().items()}
    second = task.loss(some().flip(0), ids)
    other = make(loss={"name": "DynamicSoftMarginLoss"})
    assert other.loss(some().flip(0), ids) != second
    other.loss_module.load_state_dict(kept)
    assert other.loss(some().flip(0), ids) == second


def test_the_dynamic_margin_of_pairs_that_are_as_far_as_can_be():
    output = unit([1, 0, 0, 0], [-1, 0, 0, 0], [1, 0, 0, 0]).requires_grad_()
    make(loss={"name": "DynamicSoftMarginLoss"}).loss(output, torch.tensor([0, 0, 1])).backward()


def test_a_loss_that_wants_equal_counts_says_so():
    task = make(loss={"name": "SmoothAPLoss"})
    with pytest.raises(
        SpecError, match=r"tasks.place.loss: SmoothAPLoss wants .* loader.m_per_class .* has 1 to 3"
    ):
        task.loss(some(4), torch.tensor([0, 0, 0, 1]))


@pytest.mark.parametrize("name", get_args(MinerName))
def test_every_miner_can_be_used(name):
    task = make(loss={"name": "TripletMarginLoss"}, miner={"name": name})
    assert task.loss(some(12), torch.arange(12) % 3).isfinite()


def test_names_are_those_of_the_library():
    from pytorch_metric_learning import losses, miners

    of_losses = {name for name, found in vars(losses).items() if isinstance(found, type)}
    assert set(get_args(LossName)) == of_losses - set(REFUSED_LOSSES)
    assert set(REFUSED_LOSSES) < of_losses
    of_miners = {name for name, found in vars(miners).items() if isinstance(found, type)}
    assert set(get_args(MinerName)) == of_miners - set(REFUSED_MINERS)
    assert set(REFUSED_MINERS) < of_miners


def test_weights_of_the_loss():
    assert make().loss_module is None
    task = make(loss={"name": "SubCenterArcFaceLoss", "args": {"sub_centers": 2}})
    torch.manual_seed(0)
    task.begin_loss()
    first = [p.clone() for p in task.loss_module.parameters()]
    assert [p.shape for p in first] == [(4, 3 * 2)]
    task.loss(some(), torch.arange(8) % 3).backward()
    assert all(p.grad.any() for p in task.loss_module.parameters())
    torch.manual_seed(0)
    task.begin_loss()
    assert all(map(torch.equal, first, task.loss_module.parameters()))
    assert pickle.loads(pickle.dumps(task))._loss is None  # copies for loaders and artifacts carry none


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"loss": {"args": {"alhpa": 2}}}, "tasks.place.loss: MultiSimilarityLoss: .*alhpa"),
        (
            {"loss": {"name": "ArcFaceLoss", "args": {"num_classes": 3}}},
            "num_classes follows from .*; drop it",
        ),
        (
            {"miner": {"name": "AngularMiner", "args": {"angel": 2}}},
            "tasks.place.miner: AngularMiner: .*angel",
        ),
        ({"loss": {"name": "RankedListLoss"}}, "RankedListLoss: .*margin"),
        (
            {"loss": {"name": "P2SGradLoss"}, "miner": {"name": "BatchHardMiner"}},
            "with miner BatchHardMiner: ",
        ),
    ],
)
def test_what_cannot_be_made_is_refused(keys, said):
    with pytest.raises(SpecError, match=said):
        make(**keys).begin_loss()


def test_proxies_want_ids():
    with pytest.raises(SpecError, match="weights for every id to train on, and there are 1"):
        make(ids=["a"], loss={"name": "ProxyNCALoss"}).begin_loss()


def test_ids_that_training_never_saw(tmp_path):
    path = tmp_path / "ids.csv"
    path.write_text("id,label\n1,b\n2,new\n3,\n4,new\n5,newer\n", encoding="utf-8")
    task = make()
    read = {image: task.read(path, image) for image in "12345"}
    assert read["1"] == 1 and read["3"] is None
    assert read["2"] == read["4"] != read["5"]
    assert read["2"] >= FIRST_UNSEEN and read["2"].dtype == np.int64
    assert task.number_of("new") == make(ids=["x", "y"]).number_of("new")


def test_a_column_per_class_is_no_id(tmp_path):
    path = tmp_path / "ids.csv"
    path.write_text("id,cat,dog\n1,1,0\n", encoding="utf-8")
    with pytest.raises(DataError, match="ids.csv has 2 columns beside the pictures; expected one, the id"):
        make().read(path, "1")


def test_head_gives_vectors_of_length_1():
    task = make(dims=6)
    head = task.head(10)
    for dtype in (torch.float32, torch.bfloat16):
        output = head.to(dtype)(torch.randn(3, 10).to(dtype) * 1000)
        assert output.shape == (3, 6) and output.dtype == dtype
        torch.testing.assert_close(output.float().norm(dim=1), torch.ones(3), rtol=0, atol=1e-2)


def test_decode_and_draw():
    task, image = make(), np.zeros((40, 200, 3), np.uint8)
    prediction = task.decode(unit([1, 2, 2, 0]), (40, 200), (32, 32))
    assert prediction.vector == pytest.approx([1 / 3, 2 / 3, 2 / 3, 0])
    drawn = [task.draw(image, prediction)]
    drawn += [task.draw(image, task.as_prediction(torch.tensor(i), (32, 32))) for i in (2, -1)]
    assert all(picture.shape == image.shape and picture.any() for picture in drawn)
    assert task.as_prediction(torch.tensor(2), (32, 32)).id == "c"
    assert len({picture.tobytes() for picture in drawn}) == 3
