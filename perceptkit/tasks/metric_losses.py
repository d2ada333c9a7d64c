"""Losses and miners of pytorch-metric-learning by name; data/metric_samplers.py has its samplers.

Musgrave, Belongie, Lim. *PyTorch Metric Learning.* 2020. https://arxiv.org/abs/2008.09164
"""

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from perceptkit.errors import SpecError
from perceptkit.spec.metric_learning import OF_EQUAL_COUNTS, MetricLossSpec, MinerSpec


class MetricLoss(nn.Module):
    """The loss of a batch of embeddings with ids; its parameters are what the loss learns of its own.

    Args:
        loss, miner: their names and arguments.
        dims: of the embeddings.
        num_ids: how many ids there are to train on, 0 to num_ids - 1.

    Raises SpecError for arguments that they do not take, a miner that the loss takes no pairs from, or too few ids.
    """

    def __init__(self, loss: MetricLossSpec, miner: MinerSpec | None, dims: int, num_ids: int) -> None:
        super().__init__()
        from pytorch_metric_learning import losses, miners

        kind: Any = getattr(losses, loss.name)
        known = {
            key: value
            for key, value in (
                ("num_classes", num_ids),
                ("embedding_size", dims),
                ("descriptors_dim", dims),
            )
            if _needs(kind, key)
        }
        if twice := sorted(set(known) & set(loss.args)):
            raise SpecError(f"loss.args: {twice[0]} follows from dims and the data; drop it")
        if known and num_ids < 2:
            raise SpecError(
                f"loss: {loss.name} has weights for every id to train on, and there are {num_ids}"
            )
        self.loss: nn.Module = _make("loss", kind, {**known, **loss.args})
        self.name = loss.name
        if loss.name == "DynamicSoftMarginLoss":
            _keep_histogram(self.loss)
        self.miner: nn.Module | None = None
        if miner is not None:
            self.miner = _make("miner", getattr(miners, miner.name), miner.args)
        self._try(loss, miner, dims)

    def forward(self, vector_BD: Tensor, id_B: Tensor) -> Tensor:
        """One number; a zero with a gradient where no pair is left.

        Raises SpecError where the loss wants as many pictures of every id, and a batch has not.
        """
        count_C = torch.unique(id_B, return_counts=True)[1]
        if self.name in OF_EQUAL_COUNTS and (count_C != count_C[0]).any():
            found = f"{int(count_C.min())} to {int(count_C.max())}"
            raise SpecError(f"loss: {self.name} {OF_EQUAL_COUNTS[self.name]}; this batch has {found}")
        if self.name == "NCALoss" and len(count_C) == len(id_B):
            return vector_BD.sum() * 0  # a mean over pictures that have another of their id
        pairs = self.miner(vector_BD, id_B) if self.miner is not None else None
        value: Any = self.loss(vector_BD, id_B, pairs)
        if self.name == "DynamicSoftMarginLoss":
            own: Any = self.loss
            own.hist_ = own.hist_.detach()  # of batches before this one no gradient is left
        return torch.as_tensor(value, device=vector_BD.device) + vector_BD[:0].sum()

    def _try(self, loss: MetricLossSpec, miner: MinerSpec | None, dims: int) -> None:
        """Runs both once: some arguments are looked at only then."""
        kept = {name: value.clone() for name, value in self.state_dict().items()}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            probe = nn.functional.normalize(torch.randn(8, dims), dim=1)
            try:
                self(probe, torch.arange(8) // 2 % 2)
            except Exception as error:  # the library raises many types
                beside = f" with miner {miner.name}" if miner is not None else ""
                raise SpecError(f"loss: {loss.name}{beside}: {_reason(error)}") from error
        self.load_state_dict(kept)


def _keep_histogram(loss: nn.Module) -> None:
    """Makes the running histogram of DynamicSoftMarginLoss a buffer, which moves and is saved with the loss.

    It gets two bins more: the library writes to the bin after a difference's own, and a difference in the last bin has
    none there.
    """
    bins: Any = loss.hist_
    del loss.hist_
    loss.register_buffer("hist_", torch.zeros(len(bins) + 2))


def _needs(kind: type, key: str) -> bool:
    """Whether some `__init__` in the line of a class has a parameter `key` without a default."""
    found = [
        inspect.signature(vars(base)["__init__"]).parameters.get(key)
        for base in kind.__mro__
        if "__init__" in vars(base) and base is not object
    ]
    return any(parameter is not None and parameter.default is parameter.empty for parameter in found)


def _make(where: str, kind: Any, args: dict[str, Any]) -> Any:
    try:
        return kind(**args)
    except Exception as error:  # TypeError of most, AssertionError and ValueError of some
        raise SpecError(f"{where}: {kind.__name__}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:3]) or type(error).__name__
