"""What a recipe takes from a domain of the Visual Decathlon where it does not say it: weight decay and crop."""

from typing import Any

from perceptkit.spec.decathlon import CROP, NOT_CROPPED, SIZE, WEIGHT_DECAY
from perceptkit.spec.recipe import AugmentSpec, Recipe
from perceptkit.spec.tasks_file import DecathlonData, TasksFile


def for_domain(recipe: Recipe, tasks: TasksFile) -> Recipe:
    """The recipe with what its domain is trained with; as it is for other sources and domains of one's own."""
    data = tasks.data
    if not isinstance(data, DecathlonData) or data.domain not in WEIGHT_DECAY:
        return recipe
    changed: dict[str, Any] = {}
    if "weight_decay" not in recipe.optim.model_fields_set:
        changed["optim"] = recipe.optim.model_copy(update={"weight_decay": WEIGHT_DECAY[data.domain]})
    if "augment" not in recipe.model_fields_set and data.domain not in NOT_CROPPED and data.size == SIZE:
        changed["augment"] = AugmentSpec(crop=CROP)
    return recipe.model_copy(update=changed)
