"""A supernet from what the recipe says."""

from collections.abc import Mapping

from timm.data import resolve_data_config

from perceptkit.model.supernet import RGB, Supernet
from perceptkit.model.weights import create_backbone
from perceptkit.spec.recipe import BackboneSpec, HeadsSpec
from perceptkit.tasks.base import Task


def build_supernet(
    backbone: BackboneSpec,
    heads: HeadsSpec,
    tasks: Mapping[str, Task],
    size_HW: tuple[int, int],
    load: bool = True,
    mean: RGB | None = None,
    std: RGB | None = None,
) -> Supernet:
    """The network with its initial weights.

    Args:
        backbone, heads: from the recipe.
        tasks: by name.
        size_HW: network input in pixels.
        load: False leaves all weights random: an artifact brings its own.
        mean, std: normalisation of the pictures, RGB in [0, 1]; what the backbone's weights expect by default.

    Raises:
        SpecError: the backbone is unknown, cannot be gated, or its weights cannot be loaded.
    """
    model = create_backbone(backbone, size_HW, load)
    config = resolve_data_config(model=model)
    return Supernet(model, tasks, heads.channels, size_HW, mean or config["mean"], std or config["std"])
