"""A head that starts as the classifier that the backbone's weights bring along (`heads.classifier: pretrained`).

    head of the task = the last layer of timm's model, so that before any training
    supernet(image)[task] = timm_model(image)

This holds where the classifier is one linear layer on the mean of the last map: ResNets and their kin. Others
have a norm, a convolution or tokens in between. Which it is, is not guessed from names but found by running both.
Not checked, as no file says it: that the classes of the task are in the classifier's order.

Shapes: B batch, C = 3 (RGB), H W pixels of the input.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from perceptkit.errors import SpecError
from perceptkit.model.plan import Plan
from perceptkit.model.supernet import Supernet, head_key
from perceptkit.model.weights import create_backbone
from perceptkit.spec.recipe import BackboneSpec
from perceptkit.tasks.base import Task

TOLERANCE = 1e-4
"""Of the largest logit: the mean over a map is summed in another order than timm's."""


def classification_task(tasks: Mapping[str, Task]) -> str:
    """The name of the one classification task. Raises SpecError where there is none or more than one."""
    found = [name for name, task in tasks.items() if task.type == "classification"]
    if len(found) != 1:
        have = f"{len(found)}: {', '.join(found)}" if found else "none"
        raise SpecError(
            f"heads.classifier: pretrained needs one classification task; the tasks file has {have}"
        )
    return found[0]


@torch.no_grad()
def start_as_classifier(net: Supernet, task: str, spec: BackboneSpec) -> None:
    """Copies the backbone's classifier into the head of `task`, in place.

    Args:
        net: has the backbone's weights, as `spec` says.
        task: a classification.
        spec: from the recipe, with weights.

    Raises:
        SpecError: the weights hold no classifier of that many classes, or it is more than a linear layer on
            the mean of the last map.
    """
    classes = net.tasks[task].out_channels
    where = f"heads.classifier: pretrained, for the {classes} classes of {task}"
    try:
        whole: Any = create_backbone(spec, net.size_HW, num_classes=classes).eval()
    except SpecError as error:
        raise SpecError(f"{where}: {error}") from error
    of_weights = getattr(whole, "pretrained_cfg", {}).get("num_classes")
    if spec.weights == "pretrained" and of_weights != classes:  # timm then makes a random one
        raise SpecError(f"{where}: the classifier of {spec.name} has {of_weights}")
    classifier: Any = whole.get_classifier()
    head: Any = net.heads[head_key(task)].get_submodule("predict")
    fits = isinstance(classifier, nn.Linear) and classifier.bias is not None
    if fits := fits and classifier.weight.shape == head.weight.shape:
        head.load_state_dict(classifier.state_dict())
    if not fits or not _answers_alike(net, task, whole):
        raise SpecError(
            f"{where}: the classifier of {spec.name} is more than a linear layer on the mean of its last map; "
            "leave heads.classifier at new"
        )


def _answers_alike(net: Supernet, task: str, whole: nn.Module) -> bool:
    """Whether the supernet with all blocks gives the timm model's logits, on noise."""
    image_BCHW = torch.randn(2, 3, *net.size_HW, generator=torch.Generator().manual_seed(0))
    plan = Plan.all_keep([task], [block.name for block in net.blocks])
    was_training = net.training
    own, timms = net.eval()(image_BCHW, plan, [task])[task], whole(image_BCHW)
    net.train(was_training)
    return bool((own - timms).abs().max() <= TOLERANCE * timms.abs().max())
