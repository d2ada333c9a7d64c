"""timm models by name, with the weights a recipe asks for."""

import difflib
import fnmatch
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from perceptkit.errors import SpecError
from perceptkit.model import cifar_resnet, decathlon_resnet
from perceptkit.model.family import covered_size, patch_size
from perceptkit.model.thin_resnet import start_thin
from perceptkit.spec.recipe import BackboneSpec

CLASSIFIERS = ("fc", "classifier", "head", "linear")
"""First parts of the keys of timm's classifiers."""


def register_own() -> None:
    """Makes perceptkit's own models known to timm, once."""
    cifar_resnet.register()
    decathlon_resnet.register()


def backbone_names(pattern: str = "*") -> list[str]:
    """All names that match: timm's models, and those that perceptkit registers with timm.

    A pattern with a dot is one of names with their weights, as `resnet18.a1_in1k`; without it a name has no tag.
    """
    register_own()
    return fnmatch.filter(timm.list_models(include_tags="." in pattern), pattern)


def own_size(name: str) -> tuple[int, int]:
    """Height and width in pixels that the model was made for."""
    register_own()
    config = timm.get_pretrained_cfg(name)
    return config.input_size[1:] if config is not None else (224, 224)


def create_backbone(
    spec: BackboneSpec,
    size_HW: tuple[int, int],
    load: bool = True,
    num_classes: int = 0,
    key: str = "backbone",
    presets: Sequence[str] = (),
    fewer_blocks: bool = False,
) -> nn.Module:
    """A timm model, as a rule without classifier.

    Args:
        spec: name, weights and further arguments of `timm.create_model`.
        size_HW: network input in pixels; models of a fixed input size are made for it.
        load: False leaves the weights random, whatever the spec says (an artifact brings its own).
        num_classes: of its own classifier, whose weights then must fit too; 0 leaves it out.
        key: of the recipe, where the spec comes from; errors name it.
        presets: names that are no timm models and could be meant there.
        fewer_blocks: of `load_backbone`.

    Raises:
        SpecError: unknown name or arguments, weights that cannot be had or do not fit.
    """
    register_own()
    if not timm.is_model(spec.name.split(".")[0]) and not spec.name.startswith("hf-hub:"):
        near = difflib.get_close_matches(spec.name, [*presets, *timm.list_models()], n=3)
        hint = f"; did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
        raise SpecError(f"{key}.name {spec.name!r} is not a timm model{hint} (`perceptkit list backbones`)")
    arguments = dict(spec.args)
    config = timm.get_pretrained_cfg(spec.name) if timm.is_model(spec.name.split(".")[0]) else None
    if spec.wide is not None and num_classes:
        raise SpecError(f"{key}.wide: a classifier of the wider network does not fit; drop one of the two")
    from_hub = load and spec.weights == "pretrained" and spec.wide is None
    if config is not None and config.fixed_input_size:
        arguments.setdefault("img_size", size_HW)
        if "dynamic_img_size" not in arguments and _knows_dynamic_size(spec.name, arguments):
            arguments["dynamic_img_size"] = True
    model = _create(spec, from_hub, num_classes, arguments, key)
    patch = patch_size(model)
    covered_HW = covered_size(model, size_HW)
    if patch is not None and covered_HW != size_HW and "img_size" in arguments:
        # timm pads the picture to whole patches, but only in this mode
        padded = {"img_size": covered_HW, "dynamic_img_size": True, "dynamic_img_pad": True}
        try:
            model = _create(spec, from_hub, num_classes, arguments | padded, key)
        except SpecError as error:
            raise SpecError(
                f"{spec.name} wants a data.size in whole patches of {patch[0]}x{patch[1]} pixels, as "
                f"[{covered_HW[0]}, {covered_HW[1]}]"
            ) from error
    if load and spec.wide is not None:
        of_wide = spec.model_copy(update={"args": spec.wide, "wide": None})
        start_thin(model, create_backbone(of_wide, size_HW, key=key), key)
    elif load and spec.weights not in ("pretrained", "none"):
        load_backbone(model, Path(spec.weights), key, fewer_blocks)
    return model


def _create(
    spec: BackboneSpec, from_hub: bool, num_classes: int, arguments: Mapping[str, Any], key: str
) -> nn.Module:
    """The timm model; any failure is a SpecError."""
    name = spec.name
    try:
        if from_hub:
            return timm.create_model(name, pretrained=True, num_classes=num_classes, **arguments)
        return _without_zero_init(name, num_classes, arguments)
    except Exception as error:  # the hub client and timm's constructors raise many types
        if from_hub and not isinstance(error, TypeError):
            raise SpecError(
                f"the pretrained weights of {name} cannot be had ({_first_line(error)}); download them once "
                f"where there is a network, or set {key}.weights to a safetensors file or to none"
            ) from error
        if spec.args:  # of a recipe whose backbone.name was changed alone, most of the time
            raise SpecError(
                f"{name} does not take the recipe's {key}.args {spec.args} ({_first_line(error)}); if they are "
                f"for another model, set {key}.args={{}}, or to arguments of {name}"
            ) from error
        raise SpecError(f"{key}.name {name!r} cannot be made: {_first_line(error)}") from error


def _knows_dynamic_size(name: str, arguments: Mapping[str, Any]) -> bool:
    """Whether timm's switch for other sizes than the model's own costs nothing: ViT and EVA resample their positions
    where a size differs, Swin would make its masks anew for every picture.

    Asked of a model without memory: which class a name makes is written nowhere else.
    """
    try:
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            made = timm.create_model(name, **arguments, dynamic_img_size=True)
        return isinstance(made, VisionTransformer | Eva)
    except Exception:  # of any type: the real attempt says what is wrong
        return False


def _without_zero_init(name: str, num_classes: int, arguments: Mapping[str, Any]) -> nn.Module:
    """timm's residual nets start with every residual branch at zero, so that keep and skip are the same
    network and a policy has nothing to learn from; off where the family has the switch."""
    before = torch.get_rng_state()
    try:
        return timm.create_model(name, num_classes=num_classes, zero_init_last=False, **arguments)
    except TypeError:
        torch.set_rng_state(before)  # the second try draws what the first would have
        return timm.create_model(name, num_classes=num_classes, **arguments)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def load_backbone(model: nn.Module, path: Path, key: str = "backbone", fewer_blocks: bool = False) -> None:
    """Loads a safetensors file with timm's keys; a classifier that only the file has is ignored, all else
    must fit.

    Args:
        model: gets the weights, in place.
        path: of the file.
        key: of the recipe, where the path comes from; errors name it.
        fewer_blocks: the file may be of a ResNet with more blocks in a stage; those are ignored too.

    Raises SpecError where the file cannot be read, or does not fit.
    """
    if not path.is_file():
        raise SpecError(f"{key}.weights: {path} does not exist (pretrained, none, or a safetensors file)")
    try:
        loaded = load_file(path)
    except Exception as error:  # safetensors raises its own type, not exported
        raise SpecError(f"{key}.weights: {path} is not a safetensors file ({_first_line(error)})") from error
    own = model.state_dict()
    missing = [key for key in own if key not in loaded and not key.endswith("num_batches_tracked")]
    wrong = [key for key in own if key in loaded and own[key].shape != loaded[key].shape]
    extra = [key for key in loaded if key not in own and key.split(".")[0] not in CLASSIFIERS]
    if fewer_blocks:
        extra = [key for key in extra if not _is_of_a_further_block(model, key)]
    problems = {"missing": missing, "other shape": wrong, "unknown": extra}
    told = [
        f"{what}: {', '.join(keys[:4])}{' ...' if len(keys) > 4 else ''}"
        for what, keys in problems.items()
        if keys
    ]
    if told:
        raise SpecError(f"{key}.weights: {path} does not fit {type(model).__name__} ({'; '.join(told)})")
    model.load_state_dict({key: loaded[key] for key in own if key in loaded}, strict=False)


def _is_of_a_further_block(model: nn.Module, key: str) -> bool:
    """Whether a ResNet's key (layer2.1.conv1.weight) is of a block that comes after the last of its stage here."""
    stage, _, rest = key.partition(".")
    block = rest.partition(".")[0]
    blocks = getattr(model, stage, None) if stage.startswith("layer") else None
    return isinstance(blocks, nn.Sequential) and block.isdecimal() and int(block) >= len(blocks)
