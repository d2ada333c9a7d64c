"""A block for some of the pictures: what it sees, and what its norms learn, on one rank and on two."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from perceptkit.model.gates import gather, norms_learn

RANKS = """
import datetime, torch
import torch.distributed as dist
from perceptkit.model.gates import gather
from perceptkit.train.ranks import synchronise_batchnorm
torch.set_num_threads(1)
dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=20))
rank = dist.get_rank()
torch.manual_seed(0)
block = torch.nn.Sequential(torch.nn.Conv2d(4, 4, 3, padding=1), torch.nn.BatchNorm2d(4)).double()
synchronise_batchnorm(block, torch.device("cpu"))
whole = torch.randn(8, 4, 8, 8, dtype=torch.float64)
for kept in ([0, 2], [4], []):  # of rank 0 alone
    keep = torch.zeros(8, dtype=torch.bool)
    keep[kept] = True
    x = whole[rank::2].clone().requires_grad_()
    gather(block, x, x, keep[rank::2], norms_learn=True).square().sum().backward()
    assert x.grad.isfinite().all()
if rank == 0:
    torch.save(block[1].running_mean, __OUT__)
dist.barrier()
dist.destroy_process_group()  # else gloo's threads may still run when the interpreter ends, which aborts it
"""


def block(size: int = 3) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(4, 4, size, padding=size // 2), nn.BatchNorm2d(4))


def test_norms_see_only_the_pictures_that_keep_the_block():
    ours, theirs = block(), block()
    x = torch.randn(6, 4, 5, 5)
    keep = torch.tensor([True, False, True, False, False, True])
    found = gather(ours, x, x, keep, norms_learn=True)
    torch.testing.assert_close(found[keep], theirs(x[keep]))
    assert torch.equal(found[~keep], x[~keep])
    torch.testing.assert_close(ours[1].running_mean, theirs[1].running_mean)


def test_one_picture_of_one_pixel_has_no_variance_so_the_block_sees_all():
    ours, theirs = block(1), block(1)
    x = torch.randn(3, 4, 1, 1)
    keep = torch.tensor([False, True, False])
    with pytest.raises(ValueError, match="more than 1 value"):
        gather(ours, x, x, keep)
    found = gather(ours, x, x, keep, norms_learn=True)
    torch.testing.assert_close(found[1], theirs(x)[1])


def test_norms_learn():
    net = block()
    assert norms_learn(net) and not norms_learn(net.eval()) and not norms_learn(nn.Conv2d(1, 1, 1))


@pytest.mark.slow
def test_a_rank_without_pictures_takes_part(tmp_path):
    """Its norms' collective would otherwise wait for it forever."""
    driver = tmp_path / "driver.py"
    driver.write_text(RANKS.replace("__OUT__", repr(str(tmp_path / "mean.pt"))))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([*torchrun, str(driver)], check=True, timeout=120)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)).double()
    whole = torch.randn(8, 4, 8, 8, dtype=torch.float64)
    net(whole[[0, 2]])
    net(whole)  # one picture alone: all are seen
    torch.testing.assert_close(torch.load(tmp_path / "mean.pt", weights_only=True), net[1].running_mean)
