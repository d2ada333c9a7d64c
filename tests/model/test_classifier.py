"""`heads.classifier: pretrained`: before training the head answers what timm's model answers, or it is refused."""

import pytest
import timm
import torch
from safetensors.torch import save_file

from perceptkit.errors import SpecError
from perceptkit.model.build import build_supernet
from perceptkit.model.classifier import classification_task, start_as_classifier
from perceptkit.model.plan import Plan
from perceptkit.model.weights import backbone_names
from perceptkit.spec.recipe import BackboneSpec, HeadsSpec
from perceptkit.spec.tasks_file import ClassificationSpec, EdgesSpec
from perceptkit.tasks.classification import Classification
from perceptkit.tasks.edges import Edges

SIZE = (32, 32)
CLASSES = 7


def tasks(classes=CLASSES):
    label = Classification(
        "label", ClassificationSpec(type="classification"), [f"c{i}" for i in range(classes)]
    )
    return {"rim": Edges("rim", EdgesSpec(type="edges"), []), "label": label}


def trained(name, folder, classes=CLASSES):
    """A timm model whose weights stand for trained ones, and the spec that reads them from a file."""
    backbone_names()  # registers the CIFAR nets
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = timm.create_model(name, num_classes=classes).eval()
        for parameter in model.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)  # norms too, which start as 1 and 0
    path = folder / f"{name}.safetensors"
    save_file(model.state_dict(), path)
    return model, BackboneSpec(name=name, weights=str(path))


def make(spec, of=None):
    of = of or tasks()
    return build_supernet(spec, HeadsSpec(channels=16), of, SIZE)


@pytest.mark.parametrize("name", ["cifar10_resnet8", "test_resnet", "regnety_002"])
def test_untrained_it_answers_like_timms_model(name, tmp_path):
    model, spec = trained(name, tmp_path)
    net = make(spec)
    backbone = {key: value.clone() for key, value in net.backbone.state_dict().items()}
    start_as_classifier(net, "label", spec)
    assert net.training and all(torch.equal(v, backbone[k]) for k, v in net.backbone.state_dict().items())
    image = torch.randn(3, 3, *SIZE)
    plan = Plan.all_keep(list(net.tasks), [block.name for block in net.blocks])
    assert torch.allclose(net.eval()(image, plan)["label"], model(image), atol=1e-5)


def test_another_number_of_classes(tmp_path):
    _, spec = trained("cifar10_resnet8", tmp_path, classes=5)
    with pytest.raises(
        SpecError, match="for the 7 classes of label: .*other shape: linear.weight, linear.bias"
    ):
        start_as_classifier(make(spec), "label", spec)


def test_weights_without_a_classifier(tmp_path):
    _, spec = trained("cifar10_resnet8", tmp_path, classes=0)
    with pytest.raises(SpecError, match="for the 7 classes of label: .*missing: linear.weight, linear.bias"):
        start_as_classifier(make(spec), "label", spec)


@pytest.mark.parametrize("name", ["test_convnext", "mobilenetv3_small_050"])
def test_a_classifier_that_is_more_than_a_linear_layer_on_the_mean(name, tmp_path):
    _, spec = trained(name, tmp_path)
    with pytest.raises(
        SpecError, match="more than a linear layer on the mean.*leave heads.classifier at new"
    ):
        start_as_classifier(make(spec), "label", spec)


def test_timms_own_weights_must_have_as_many_classes(monkeypatch):
    """timm drops the classifier of another number of classes without a word."""
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda *a, pretrained=False, **more: create(*a, **more))
    spec = BackboneSpec(name="resnet18", weights="pretrained")
    with pytest.raises(SpecError, match="the classifier of resnet18 has 1000"):
        start_as_classifier(make(spec), "label", spec)


def test_there_must_be_one_classification_task():
    of = tasks()
    assert classification_task(of) == "label"
    with pytest.raises(SpecError, match="needs one classification task; the tasks file has none"):
        classification_task({"rim": of["rim"]})
    with pytest.raises(SpecError, match="has 2: label, other"):
        classification_task({"label": of["label"], "other": of["label"]})
