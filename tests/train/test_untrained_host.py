"""Which hosts are refused or told of, and what to type."""

import pytest

import perceptkit as pk
from perceptkit.errors import SpecError
from perceptkit.spec.load import load_recipe
from perceptkit.spec.tasks_file import ClassificationSpec, EdgesSpec
from perceptkit.tasks.classification import Classification
from perceptkit.tasks.edges import Edges
from perceptkit.train import untrained_host
from perceptkit.train.untrained_host import host_epochs

ROUTE = "{name: route, epochs: 1}"


def classes(count: int):
    """One classification of so many classes."""
    spec = ClassificationSpec(type="classification")
    return {"label": Classification("label", spec, [f"c{i}" for i in range(count)])}


RIM = {"rim": Edges("rim", EdgesSpec(type="edges"), [])}


def of(stages: str, *changes: str):
    overrides = [f"stages=[{stages}]", *changes]
    return load_recipe("blockdrop_cifar10", overrides).spec


def check_host(recipe, tasks=None):
    return untrained_host.check_host(recipe, tasks or classes(10))


@pytest.fixture
def weights(tmp_path):
    """A file, which nothing here reads."""
    path = tmp_path / "host.safetensors"
    path.touch()
    return f"backbone.weights={path}"


def test_a_network_that_nobody_trained_or_loaded_is_refused():
    with pytest.raises(SpecError) as error:
        check_host(of(ROUTE))
    said = str(error.value)
    assert "--set backbone.weights=cifar10_resnet32.safetensors heads.classifier=pretrained" in said
    assert "a file with its classifier of 10 classes" in said
    assert "backbone.weights is none: " in said and "no stage trains the network" in said
    assert "a stage `retrain` in front" in said and "start_from=RUN" in said


@pytest.mark.parametrize("stages", [ROUTE, ROUTE + ", {name: finetune, epochs: 5}"])
def test_a_trunk_alone_is_no_host(stages, weights):
    for loaded in ["backbone.name=resnet18", "backbone.weights=pretrained"], [weights]:
        with pytest.raises(SpecError, match="nothing was loaded for the head of label, and no stage trains"):
            check_host(of(stages, *loaded))
        trained = of("{name: retrain, epochs: 1}, " + stages, *loaded)
        assert check_host(trained) == ""
    with pytest.raises(SpecError, match="no stage trains"):
        check_host(load_recipe("blockdrop_cifar10_paper", [weights]).spec)


def test_weights_with_their_classifier_are_a_host_of_that_task_alone(weights):
    whole = [weights, "heads.classifier=pretrained"]
    assert check_host(of(ROUTE, *whole)) == ""
    assert check_host(load_recipe("blockdrop_cifar10_paper", whole).spec) == ""
    with pytest.raises(SpecError, match="for the head of rim, and no stage trains") as error:
        check_host(of(ROUTE, *whole), classes(10) | RIM)
    assert "heads.classifier=pretrained" not in str(error.value)  # which would not do


@pytest.mark.parametrize("count", [10, 1000])
def test_the_advice_leads_to_a_host(count):
    resnet = of(ROUTE, "backbone.name=resnet18", "backbone.weights=pretrained")
    with pytest.raises(SpecError) as error:
        check_host(resnet, classes(count))
    weights = "pretrained" if count == 1000 else "resnet18.safetensors"
    assert f"--set backbone.weights={weights} heads.classifier=pretrained" in str(error.value)


def test_a_short_training_is_told_of():
    said = check_host(load_recipe("blockdrop_cifar10", ["stages.retrain.epochs=1"]).spec)
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


def test_the_run_is_refused_before_its_folder_is_made(routed_run, tmp_path):
    tasks, recipe = routed_run
    recipe.write_text(recipe.read_text().replace("  - {name: warmup, epochs: 2}\n", ""))
    with pytest.raises(SpecError, match="no stage trains the network"):
        pk.train(tasks, recipe, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
