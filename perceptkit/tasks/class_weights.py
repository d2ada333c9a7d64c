"""Factors of classes in a loss, so that rare ones are not outvoted.

    L = sum_n w[y_n] l_n / sum_n w[y_n]        n: labelled pixels or pictures, y_n their class

A weighted mean: its size is that of the plain one, whatever the factors are (as `torch.nn.CrossEntropyLoss(weight=w)`).

Shapes: C classes.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from perceptkit.errors import SpecError
from perceptkit.spec.problems import did_you_mean


def class_weights(task: str, given: Mapping[str, float], labels: Sequence[str]) -> Tensor | None:
    """w (C,), 1 for classes that are not named; None where none is.

    Raises SpecError for a name that is no class.
    """
    if not given:
        return None
    for name in given:
        if name not in labels:
            raise SpecError(f"tasks.{task}.class_weights: no class '{name}'{did_you_mean(name, labels)}")
    return torch.tensor([float(given.get(label, 1)) for label in labels])
