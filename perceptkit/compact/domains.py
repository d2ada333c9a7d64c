"""One base, many domains: the base's trunk once, and for each domain the little that it stores beside it.

    FOLDER/base.safetensors            the base's trunk, norms not folded
    FOLDER/base.json                   its digest: a domain fits one base only
    FOLDER/domains/NAME/               manifest.json of the adapted model, domain.json, delta.safetensors

FOLDER may be the base's own artifact, or a folder for domains alone. A domain is put together when it is loaded: the
trunk, what its strategy added and learned, folded to plain weights. No domain's files are touched by another's.
"""

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from perceptkit.compact import artifact, build
from perceptkit.compact.artifact import Manifest
from perceptkit.compact.verify import parity, probe_images, refuse_mismatch
from perceptkit.errors import ExportError, SpecError
from perceptkit.model.build import build_supernet
from perceptkit.model.plan import Plan
from perceptkit.model.router import build_router
from perceptkit.model.strategy import Origin, Strategy
from perceptkit.model.supernet import Supernet
from perceptkit.policies.spottune import SpotTune
from perceptkit.spec.adaptation import AdaptationSpec
from perceptkit.spec.recipe import Recipe
from perceptkit.train.adapting import make_strategy
from perceptkit.train.domain_file import ABOUT, DELTA, FOLDER, FORMAT, digest, needed
from perceptkit.train.run_folder import read_resolved, write_atomically, write_json
from perceptkit.train.start_from import base_of, find_base

DOMAINS, TRUNK, BASE = "domains", "base.safetensors", "base.json"
WHOLE = ("scratch", "finetune", "lwf", "l2sp")
"""Methods whose domains hold every weight of a plain network: what else they do, they do in training."""
ROUTER = "router."


def domain_names(folder: Path) -> list[str]:
    """Of all domains, sorted."""
    return sorted(path.parent.name for path in (folder / DOMAINS).glob(f"*/{ABOUT}"))


def base_words(folder: Path) -> str:
    """What the base's second copy is and how large; empty where there is none."""
    trunk = folder / TRUNK
    if not trunk.is_file():
        return ""
    size = trunk.stat().st_size
    model = folder / artifact.WEIGHTS
    words = (
        f"{trunk}: {size:,} bytes, the base's trunk as it was trained, norms not folded; every domain is put together "
        "from it"
    )
    if model.is_file():
        words += f". {model.name} ({model.stat().st_size:,} bytes) is the base folded, for itself"
    return words


def add_domain(folder: Path, run: Path, name: str) -> None:
    """Copies what an adapted run stores, and the base's trunk if it is not there yet; compares what can be read back.

    Raises:
        SpecError: the run was not adapted or is not finished, the name is taken or no name, or the base is another one.
        ExportError: what is read back computes something else than the run's artifact; nothing is left then.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise SpecError(f"{name!r} is no name for a domain: letters, digits, dots, - and _ make one")
    if name in domain_names(folder):
        raise SpecError(f"{folder} has a domain {name} already; remove it first, or choose another --name")
    source, made = run / FOLDER, run / "artifact"
    if not (source / ABOUT).is_file() or not (made / artifact.MANIFEST).is_file():
        raise SpecError(
            f"{run} is no finished run of `perceptkit adapt`: it has no {FOLDER}/{ABOUT} or no artifact"
        )
    about = _read_json(source / ABOUT)
    had_base = (folder / BASE).is_file()
    if had_base:
        if _read_json(folder / BASE)["digest"] != about["base"]:
            raise SpecError(f"{run} was adapted from another base than the domains of {folder}")
    else:
        _write_base(folder, run, about["base"])
    to = folder / DOMAINS / name
    shutil.rmtree(to, ignore_errors=True)  # what an add that was killed left
    to.mkdir(parents=True)
    try:
        for path in (made / artifact.MANIFEST, source / DELTA, source / ABOUT):
            shutil.copyfile(path, to / path.name)
        own, _ = build.read(made)
        again, manifest = read_domain(folder, name)
        compared = parity(own, again, probe_images(manifest.size_HW))
        refuse_mismatch(compared, f"domain {name}, put together again,")
    except BaseException:
        shutil.rmtree(to)
        if not had_base:
            _remove_base(folder)
        raise


def remove_domain(folder: Path, name: str) -> None:
    """Deletes a domain's files, with the last one the base's too. Raises SpecError where there is none of this name."""
    _refuse_unknown(folder, name)
    shutil.rmtree(folder / DOMAINS / name)
    if not domain_names(folder):
        _remove_base(folder)


@torch.no_grad()
def read_domain(folder: Path, name: str) -> tuple[nn.Module, Manifest]:
    """The compact model of a domain, in eval mode, and its manifest.

    Raises:
        SpecError: there is no such domain.
        ExportError: its files are damaged.
    """
    _refuse_unknown(folder, name)
    where = folder / DOMAINS / name
    manifest, about = artifact.read_manifest(where), _read_json(where / ABOUT)
    if about.get("format") != FORMAT:
        raise ExportError(f"{where}: format {about.get('format')!r}; this version reads {FORMAT}")
    try:
        spec: AdaptationSpec = TypeAdapter(AdaptationSpec).validate_python(about["adaptation"])
        trunk, delta = load_file(folder / TRUNK), load_file(where / DELTA)
        router = {key.removeprefix(ROUTER): delta.pop(key) for key in list(delta) if key.startswith(ROUTER)}
        net = build.supernet_of(manifest, manifest.method)
        assert isinstance(net, Supernet)
        unknown = net.backbone.load_state_dict(trunk, strict=False).unexpected_keys
        if unknown:
            raise ValueError(f"the base holds {unknown[0]}, which the domain's network does not")
        strategy = _restored(spec, net, manifest, about["tuned"])
        strategy.unpack(net, delta)
        strategy.fold(net)
        net.eval()
        small = build.compact_and_fold(net, manifest.plan, manifest.size_HW, manifest.optimize)
        if manifest.router is None:
            return small.eval(), manifest
        decide = build_router(manifest.router, len(manifest.plan.routed()), manifest.size_HW, load=False)
        decide.load_state_dict(router)
        return build.with_router(decide, small, manifest), manifest
    except (OSError, KeyError, ValueError, RuntimeError, SafetensorError) as error:
        raise ExportError(f"{where} is damaged: {error}") from error


def _restored(spec: AdaptationSpec, net: Supernet, manifest: Manifest, tuned: list[str]) -> Strategy:
    """The strategy, with the network in the structure in which its domain was packed."""
    if spec.method in WHOLE:
        return Strategy(spec)
    strategy = make_strategy(spec, Origin())
    if isinstance(strategy, SpotTune):
        strategy.restore(net, manifest.plan, tuned)
    else:
        strategy.begin(net, manifest.plan)
    return strategy


def _write_base(folder: Path, run: Path, expected: str) -> None:
    """The trunk that a run was adapted from. Raises SpecError where it is not there any more, or changed."""
    tasks_file, recipe = read_resolved(run)
    if recipe.start_from is not None:
        base, plan = _base_with(expected, folder, run, recipe)
        trunk = needed(
            base, plan, {f"backbone.{name}": value for name, value in base.backbone.state_dict().items()}
        )
    else:
        manifest = artifact.read_manifest(run / "artifact")
        base = build_supernet(recipe.backbone, recipe.heads, manifest.tasks, tasks_file.first.size)
        trunk = {f"backbone.{name}": value for name, value in base.backbone.state_dict().items()}
        if digest(base.backbone) != expected:
            raise SpecError(
                f"backbone.weights {recipe.backbone.weights} is not what {run} was adapted from: its weights have "
                "changed"
            )
    stored = {name.removeprefix("backbone."): value.contiguous().clone() for name, value in trunk.items()}
    write_atomically(folder / TRUNK, lambda temporary: save_file(stored, temporary))
    write_json(folder / BASE, {"digest": expected})


def _base_with(expected: str, folder: Path, run: Path, recipe: Recipe) -> tuple[Supernet, Plan]:
    """The base that has the digest: the run whose artifact `folder` is, or else where `run` found it.

    Raises SpecError where it is not there any more, or changed, or `folder` is the artifact of another run.
    """
    own = folder.parent
    if (own / "resolved.yaml").is_file():
        try:
            base, plan = base_of(own, recipe)
        except SpecError:
            pass  # of another network, or adapted itself
        else:
            if digest(base.backbone) == expected:
                return base, plan
    origin = find_base(run, recipe)
    base, plan = base_of(origin, recipe)
    if digest(base.backbone) != expected:
        raise SpecError(
            f"{origin} is not what {run} was adapted from: its weights have changed. Base moved? perceptkit domains "
            f"BASE --add {run}, where BASE is the run that it was adapted from"
        )
    if (own / "resolved.yaml").is_file() and (folder / artifact.MANIFEST).is_file():
        # its own model would pass for the base of these domains
        raise SpecError(
            f"{run} was adapted from {origin}, not from {own}: add it there, or to a folder for domains alone"
        )
    return base, plan


def _remove_base(folder: Path) -> None:
    for name in (TRUNK, BASE):
        (folder / name).unlink(missing_ok=True)


def _refuse_unknown(folder: Path, name: str) -> None:
    known = domain_names(folder)
    if name not in known:
        there = f"it has {', '.join(known)}" if known else "it has none"
        raise SpecError(f"{folder} has no domain {name!r}; {there}")


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        loaded: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ExportError(f"{path} is damaged: {error}") from error
    return loaded
