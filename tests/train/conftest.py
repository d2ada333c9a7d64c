"""Runs that take seconds: a tiny timm ResNet on scenes of 32x32 pixels."""

from pathlib import Path

import pytest

TASKS = """\
version: 1
name: small
data:
  source: scenes
  size: [32, 32]
  count: {train: 24, val: 4, test: 4}
tasks:
  seg: {type: segmentation}
  depth: {type: depth, weight: 0.5}
  normals: {type: normals}
  keypoints: {type: keypoints}
  edges: {type: edges}
  room: {type: classification}
"""

RECIPE = """\
version: 1
backbone: {name: test_resnet, weights: none}
heads: {channels: 16}
sharing: {method: adashare, sparsity: 0.01, sharing: 0.01}
stages:
  - {name: warmup, epochs: 2}
  - {name: search, epochs: 3, curriculum: top_down, speed: 1, tau: [2.0, 0.5], policy_fraction: 0.5, policy_lr: 0.3}
  - {name: retrain, epochs: 2, start: scratch}
optim: {name: adamw, lr: 3e-3, weight_decay: 0.01, schedule: cosine, clip_norm: 5.0}
augment: {hflip: 0.5, rotate: 5}
loader: {batch: 4, workers: 0}
seed: 3
"""


ROUTED = """\
version: 1
backbone: {name: test_resnet, weights: none}
heads: {channels: 16}
sharing: {method: hard}
routing: {gamma: 0.5, usage: macs, tolerance: 0.5, router: {name: resnet8, downscale: 2, keep: 0.6}}
stages:
  - {name: warmup, epochs: 2}
  - {name: route, epochs: 2, speed: 0.3}
  - {name: finetune, epochs: 2}
optim: {name: adamw, lr: 3e-3, clip_norm: 5.0}
augment: {hflip: 0.5}
loader: {batch: 4, workers: 0}
seed: 3
"""


FAFS = """\
version: 1
backbone: {name: test_resnet, weights: none}
heads: {channels: 16}
sharing: {method: fafs, branch_cost: 0.05}
stages:
  - {name: warmup, epochs: 2}
  - {name: retrain, epochs: 2, start: search}
optim: {name: adamw, lr: 3e-3, clip_norm: 5.0}
augment: {hflip: 0.5}
loader: {batch: 4, workers: 0}
seed: 3
"""


@pytest.fixture
def fafs_run(small_run: tuple[Path, Path]) -> tuple[Path, Path]:
    """A tasks file and a recipe in which tasks part in a tree."""
    tasks, recipe = small_run
    recipe.write_text(FAFS, encoding="utf-8")
    return tasks, recipe


@pytest.fixture
def levels_run(small_run: tuple[Path, Path]) -> tuple[Path, Path]:
    """As `fafs_run`, but the network is trained after each level of the tree, until the last epoch begins."""
    tasks, recipe = small_run
    text = FAFS.replace("branch_cost: 0.05", "branch_cost: 0.05, level_epochs: 1")
    recipe.write_text(text.replace("retrain, epochs: 2", "retrain, epochs: 3"), encoding="utf-8")
    return tasks, recipe


@pytest.fixture
def balanced_run(small_run: tuple[Path, Path]) -> tuple[Path, Path]:
    """`small_run` with weights of the tasks that are learned from every batch."""
    tasks, recipe = small_run
    recipe.write_text(RECIPE + "balance: {method: famo}\n", encoding="utf-8")
    return tasks, recipe


@pytest.fixture
def sampled_run(tmp_path: Path) -> tuple[Path, Path]:
    """A search in turns of 1 weight step and 2 policy steps, straight through; 3 plans are drawn, each is retrained."""
    tasks, recipe = tmp_path / "small.yaml", tmp_path / "sampled_recipe.yaml"
    tasks.write_text(TASKS, encoding="utf-8")
    more = "alternate: steps, turn_steps: [1, 2], gumbel: straight_through, policy_weight_decay: 5e-4, samples: 3}"
    text = RECIPE.replace("policy_lr: 0.3}", f"policy_lr: 0.3, {more}").replace("epochs: 3,", "epochs: 2,")
    text = text.replace("sharing: 0.01}", "sharing: 0.01, formulation: reference_code}")
    recipe.write_text(text.replace("start: scratch", "start: search"), encoding="utf-8")
    return tasks, recipe


@pytest.fixture
def routed_run(tmp_path: Path) -> tuple[Path, Path]:
    """A tasks file and a recipe with BlockDrop's stages: 12 + 12 + 12 steps."""
    tasks, recipe = tmp_path / "small.yaml", tmp_path / "routed_recipe.yaml"
    tasks.write_text(TASKS, encoding="utf-8")
    recipe.write_text(ROUTED, encoding="utf-8")
    return tasks, recipe


@pytest.fixture
def small_run(tmp_path: Path) -> tuple[Path, Path]:
    """A tasks file and a recipe: 6 + 3 + 6 steps of each epoch's turns, all three train stages."""
    tasks, recipe = tmp_path / "small.yaml", tmp_path / "small_recipe.yaml"
    tasks.write_text(TASKS, encoding="utf-8")
    recipe.write_text(RECIPE, encoding="utf-8")
    return tasks, recipe
