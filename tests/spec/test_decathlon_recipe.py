"""What the recipe takes from the domain, and what it says itself."""

import pytest

from perceptkit.spec.decathlon_recipe import for_domain
from perceptkit.spec.recipe import Recipe
from perceptkit.spec.tasks_file import TasksFile

RECIPE = {
    "backbone": {"name": "decathlon_resnet26", "weights": "none"},
    "sharing": {"method": "hard"},
    "stages": [{"name": "retrain", "epochs": 1}],
}


def tasks(domain, **data):
    declared = {"source": "decathlon", "root": "/nowhere", "domain": domain, **data}
    return TasksFile.model_validate(
        {"name": "d", "data": declared, "tasks": {"label": {"type": "classification"}}}
    )


@pytest.mark.parametrize(
    ("domain", "decay", "crop"),
    [
        ("aircraft", 5e-4, (64, 64)),
        ("svhn", 0, None),
        ("vgg-flowers", 1e-4, (64, 64)),
        ("daimlerpedcls", 5e-4, None),
    ],
)
def test_a_recipe_that_says_nothing_takes_the_domain_s(domain, decay, crop):
    found = for_domain(Recipe.model_validate(RECIPE), tasks(domain))
    assert (found.optim.weight_decay, found.augment.crop) == (decay, crop)


def test_what_the_recipe_says_stays():
    stated = RECIPE | {"optim": {"weight_decay": 0.3, "lr": 0.1}, "augment": {"hflip": 0.5}}
    found = for_domain(Recipe.model_validate(stated), tasks("aircraft"))
    assert (found.optim.weight_decay, found.augment.crop, found.augment.hflip) == (0.3, None, 0.5)
    found = for_domain(Recipe.model_validate(RECIPE | {"optim": {"lr": 0.1}}), tasks("dtd"))
    assert (found.optim.weight_decay, found.optim.lr) == (0, 0.1)


def test_other_sizes_are_not_cropped_and_other_domains_are_one_s_own():
    recipe = Recipe.model_validate(RECIPE)
    assert for_domain(recipe, tasks("aircraft", size=[40, 40])).augment.crop is None
    assert for_domain(recipe, tasks("birds")) is recipe
