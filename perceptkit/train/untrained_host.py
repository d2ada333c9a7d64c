"""A router is only as good as the network that it routes: a random one is refused, one that hardly learned is told of.

Heads count: a trunk whose weights were loaded answers at random as long as what reads it is new. What routes nothing,
or begins with weights of its own, is let through.
"""

from collections.abc import Mapping

import timm

from perceptkit.errors import SpecError
from perceptkit.spec.recipe import BackboneSpec, Recipe
from perceptkit.tasks.base import Task

FEW_EPOCHS = 3
"""Of training from random weights: with fewer, the network is no host yet."""


def check_host(recipe: Recipe, tasks: Mapping[str, Task]) -> str:
    """A warning, empty where there is nothing to say.

    Raises SpecError where weights that nobody loaded or trained would be routed: those of the backbone, or of a head.
    """
    if recipe.routing is None or recipe.start_from is not None or recipe.adaptation is not None:
        return ""
    epochs, loaded = host_epochs(recipe), recipe.backbone.weights != "none"
    if epochs == 0 and (heads := random_heads(recipe, tasks)):
        what = "the backbone's weights were loaded, but" if loaded else "backbone.weights is none:"
        raise SpecError(
            f"{what} nothing was loaded for the head of {', '.join(heads)}, and no stage trains the network: a router "
            f"would learn to skip blocks of one that answers at random; {_host_of(recipe, tasks)}"
        )
    if loaded or epochs >= FEW_EPOCHS:
        return ""
    return (
        f"backbone.weights is none, and {epochs} {'epoch' if epochs == 1 else 'epochs'} from random weights make no "
        f"host for a router; add {set_weights(recipe.backbone)}, --set start_from=RUN with a run of the host, or a "
        "longer `retrain`"
    )


def random_heads(recipe: Recipe, tasks: Mapping[str, Task]) -> list[str]:
    """Tasks whose heads no loaded weights are for: all but the classification that `heads.classifier: pretrained` is
    for."""
    loaded = recipe.backbone.weights != "none" and recipe.heads.classifier == "pretrained"
    return [name for name, task in tasks.items() if not (loaded and task.type == "classification")]


def host_epochs(recipe: Recipe) -> int:
    """Passes over the train split that the weights see before routing begins; a `retrain` from scratch starts anew."""
    epochs = 0
    for stage in recipe.stages:
        if stage.name == "retrain" and stage.start == "scratch":
            epochs = 0
        if stage.name in ("warmup", "search", "retrain"):
            epochs += stage.epochs
    return epochs


def set_weights(backbone: BackboneSpec) -> str:
    """What `--set` is to be told: timm's weights, or a file of them where timm has none."""
    if timm.is_model_pretrained(backbone.name):
        return "--set backbone.weights=pretrained"
    return f"--set backbone.weights={backbone.name}.safetensors heads.classifier=pretrained"


def _host_of(recipe: Recipe, tasks: Mapping[str, Task]) -> str:
    """What makes a host of it: weights alone do only where they are of the one head too."""
    train = "add a stage `retrain` in front, or --set start_from=RUN with a run of the host"
    if [task.type for task in tasks.values()] != ["classification"]:
        return train
    name, (task,) = recipe.backbone.name, tasks.values()
    config = timm.get_pretrained_cfg(name) if timm.is_model_pretrained(name) else None
    fits = config is not None and config.num_classes == task.out_channels
    weights = "pretrained" if fits else f"{name}.safetensors"
    also = "" if fits else f", a file with its classifier of {task.out_channels} classes"
    return f"{train}, or --set backbone.weights={weights} heads.classifier=pretrained{also}"
