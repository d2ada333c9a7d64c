"""Which hosts are refused or told of, and what to type."""

import pytest

import perceptkit as pk
from perceptkit.errors import SpecError
from perceptkit.spec.load import load_recipe
from perceptkit.train.untrained_host import check_host, host_epochs

ROUTE = "{name: route, epochs: 1}"


def of(stages: str, *changes: str):
    overrides = [f"stages=[{stages}]", *changes]
    return load_recipe("blockdrop_cifar10", overrides).spec


def test_a_network_that_nobody_trained_or_loaded_is_refused():
    with pytest.raises(SpecError) as error:
        check_host(of(ROUTE))
    said = str(error.value)
    assert "--set backbone.weights=cifar10_resnet32.safetensors heads.classifier=pretrained" in said
    assert "backbone.weights is none and no stage trains the network" in said and "start_from=RUN" in said
    with pytest.raises(SpecError, match="--set backbone.weights=pretrained"):
        check_host(of(ROUTE, "backbone.name=resnet18"))


def test_a_short_training_is_told_of():
    said = check_host(load_recipe("blockdrop_cifar10", []).spec)
    assert "1 epoch from random weights make no host" in said
    assert "--set backbone.weights=cifar10_resnet32.safetensors heads.classifier=pretrained" in said
    assert check_host(of("{name: retrain, epochs: 3}, " + ROUTE)) == ""


def test_a_retraining_from_scratch_begins_anew():
    trained = "{name: warmup, epochs: 4}, {name: retrain, epochs: 1, start: %s}, " + ROUTE
    assert host_epochs(of(trained % "scratch")) == 1
    assert host_epochs(of(trained % "search")) == 5


@pytest.mark.parametrize("recipe", ["hard", "blockdrop_doom", "adapt_and_route"])
def test_recipes_without_a_router_or_with_a_host_are_let_through(recipe):
    assert check_host(load_recipe(recipe, []).spec) == ""


def test_weights_that_were_loaded_are_a_host():
    assert check_host(of(ROUTE, "backbone.name=resnet18", "backbone.weights=pretrained")) == ""


def test_the_run_is_refused_before_its_folder_is_made(routed_run, tmp_path):
    tasks, recipe = routed_run
    recipe.write_text(recipe.read_text().replace("  - {name: warmup, epochs: 2}\n", ""))
    with pytest.raises(SpecError, match="no stage trains the network"):
        pk.train(tasks, recipe, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
