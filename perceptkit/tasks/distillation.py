"""What a network should answer as another one does: losses between the outputs of two networks, by task type.

Hinton, Vinyals, Dean. *Distilling the Knowledge in a Neural Network.* 2015. https://arxiv.org/abs/1503.02531

    L = - sum_i y'_i log yhat'_i,    y' = softmax(z / T)

z comes from the other network, zhat from the one that learns. It is a cross-entropy, the entropy of y' included, and is
not multiplied by T^2.

    classification   as above; `multi_label`: the two-class form of every class, sigmoid(z / T), averaged
    segmentation     as above, averaged over pixels
    edges            the two-class form, averaged over pixels
    others           mean (z - zhat)^2 / mean z^2: relative to the size of the other's answer; of embeddings too

Shapes: class scores (B, C) or (B, C, H, W).
"""

from torch import Tensor
from torch.nn import functional as F

from perceptkit.tasks.base import Task


def softmax_distillation(output: Tensor, other: Tensor, temperature: float) -> Tensor:
    """L over classes in dimension 1, averaged over all others."""
    target = (other / temperature).softmax(1)
    return -(target * (output / temperature).log_softmax(1)).sum(1).mean()


def sigmoid_distillation(output: Tensor, other: Tensor, temperature: float) -> Tensor:
    """L of yes-or-no answers, averaged over all of them."""
    return F.binary_cross_entropy_with_logits(output / temperature, (other / temperature).sigmoid())


def relative_square(output: Tensor, other: Tensor) -> Tensor:
    """Squared difference over the mean square of the other's output."""
    return (output - other).square().mean() / other.square().mean().clamp(min=1e-12)


def regresses(task: Task) -> bool:
    """Whether the answer is a quantity and no choice: its squared difference counts, and there is no temperature."""
    return task.type not in ("segmentation", "classification", "edges")


def distillation(task: Task, output: Tensor, other: Tensor, temperature: float) -> Tensor:
    """L of one task; see the module's docstring."""
    output, other = output.float(), other.float()
    if regresses(task):
        return relative_square(output, other)
    if task.type == "edges" or not (task.type == "segmentation" or task.is_yes_or_no):
        return sigmoid_distillation(output, other, temperature)
    return softmax_distillation(output, other, temperature)
