"""A router is only as good as the network that it routes: a random one is refused, one that hardly learned is told of.

What routes nothing, or begins with weights of its own, is let through.
"""

import timm

from perceptkit.errors import SpecError
from perceptkit.spec.recipe import BackboneSpec, Recipe

FEW_EPOCHS = 3
"""Of training from random weights: with fewer, the network is no host yet."""


def check_host(recipe: Recipe) -> str:
    """A warning, empty where there is nothing to say.

    Raises SpecError where weights that nobody loaded or trained would be routed.
    """
    if (
        recipe.routing is None
        or recipe.backbone.weights != "none"
        or recipe.start_from is not None
        or recipe.adaptation is not None
    ):
        return ""
    epochs = host_epochs(recipe)
    if epochs >= FEW_EPOCHS:
        return ""
    how = f"add {set_weights(recipe.backbone)}, --set start_from=RUN with a run of the host, or a longer `retrain`"
    if epochs == 0:
        raise SpecError(
            f"backbone.weights is none and no stage trains the network: a router would learn to skip blocks of a "
            f"random one; {how}"
        )
    return (
        f"backbone.weights is none, and {epochs} {'epoch' if epochs == 1 else 'epochs'} from random weights make no "
        f"host for a router; {how}"
    )


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
