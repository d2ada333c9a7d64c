"""Blocks that a task needs, and blocks that spoil its answer: enumeration proves which plan the search must find.

A picture holds four bits p, q, u, v; task `a` asks for p == q, task `b` for u == v. All of the trunk is fixed, only
the heads and the policy learn. A head reads the mean of every channel over the picture, and all channels but the last,
`seen`, are a number times a pattern of mean zero:

    write_a   answer += pattern * p q        all that `a` wants, and for `b` as likely right as wrong
    write_b   answer += pattern * u v        the other way round
    show      seen   += pattern * answer     without it no head sees anything
    erase     seen   -= seen                 with it neither

Of a head, whatever it learns, the loss is at least the entropy of the label given what it reads. Over the 16 pictures
that is 0 for the planted plan and log 2 or half of it for all others.
"""

import csv
import math
from collections import Counter
from itertools import product

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.models import register_model
from torch import nn

from perceptkit.model.plan import Plan
from perceptkit.policies.adashare import sharing_loss, sparsity_loss
from perceptkit.spec.load import load_recipe, load_tasks
from perceptkit.train import session
from perceptkit.train.loop import run_stages

PICTURE, SIZE = 32, 8
"""Pixels of a side, and those of the features."""
P, Q, U, V, ANSWER, SEEN = range(6)
BITS = list(product((-1, 1), repeat=4))
BLOCKS = ("write_a", "write_b", "show", "erase")
PLANTED = {"a": (True, False, True, False), "b": (False, True, True, False)}
SPARSITY, SHARING = 0.01, 0.01

TASKS = """\
version: 1
name: planted
data: {source: csv, root: ., file: table.csv, split: split, size: [32, 32]}
tasks:
  a: {type: classification, classes: ["no", "yes"]}
  b: {type: classification, classes: ["no", "yes"]}
"""
CURRICULA = {
    "none": ["stages.search.curriculum=none"],
    "top_down": ["stages.search.curriculum=top_down", "stages.search.speed=4"],
}
RECIPE = f"""\
version: 1
backbone: {{name: planted_bits, weights: none}}
sharing: {{method: adashare, sparsity: {SPARSITY}, sharing: {SHARING}}}
stages:
  - {{name: warmup, epochs: 1}}
  - {{name: search, epochs: 24, tau: [5.0, 0.5], policy_fraction: 0.5, policy_lr: 0.1}}
  - {{name: retrain, epochs: 4, start: search}}
optim: {{name: adamw, lr: 0.1, weight_decay: 0.0, schedule: constant}}
loader: {{batch: 16, workers: 0}}
"""


def pattern() -> torch.Tensor:
    """A checkerboard of 1 and -1."""
    index = torch.arange(SIZE)
    return ((index[:, None] + index) % 2 * 2 - 1).float()


class Residual(nn.Module):
    """What a block adds."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what
        self.on = nn.Parameter(torch.ones(()))  # how the trunk is probed: zero silences a residual

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        added = torch.zeros_like(x)
        if self.what == "write_a":
            added[:, ANSWER] = pattern() * x[:, P] * x[:, Q]
        elif self.what == "write_b":
            added[:, ANSWER] = pattern() * x[:, U] * x[:, V]
        elif self.what == "show":
            added[:, SEEN] = pattern() * x[:, ANSWER]
        else:
            added[:, SEEN] = -x[:, SEEN]
        return added * self.on.sign().detach()  # no gradient: it never learns


class Block(nn.Module):
    def __init__(self, what: str) -> None:
        super().__init__()
        self.residual = Residual(what)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.residual(x)


class Stem(nn.Module):
    """The bits, each the sign of a quarter of the picture, times the pattern; nothing else of the picture is left."""

    def forward(self, image_BCHW: torch.Tensor) -> torch.Tensor:
        bits_B4 = nn.functional.avg_pool2d(image_BCHW[:, :1], PICTURE // 2).flatten(1).sign()
        x = torch.zeros(len(image_BCHW), 6, SIZE, SIZE)
        x[:, :ANSWER] = bits_B4[:, :, None, None] * pattern()
        return x


class Trunk(nn.Module):
    num_features = 6

    def __init__(self) -> None:
        super().__init__()
        self.stem = Stem()
        for name in BLOCKS:
            setattr(self, name, Block(name))

    def forward_features(self, image_BCHW: torch.Tensor) -> torch.Tensor:
        return self.erase(self.show(self.write_b(self.write_a(self.stem(image_BCHW)))))


@register_model
def planted_bits(pretrained: bool = False, **how: object) -> nn.Module:
    return Trunk()


def picture(bits: tuple[int, ...]) -> np.ndarray:
    """Its quarters, in rows, are white where a bit is 1."""
    quarters = np.array(bits).reshape(2, 2).repeat(PICTURE // 2, 0).repeat(PICTURE // 2, 1)
    return np.where(quarters > 0, 255, 0).astype(np.uint8)[..., None].repeat(3, -1)


def labels(bits: tuple[int, ...]) -> dict[str, int]:
    p, q, u, v = bits
    return {"a": int(p == q), "b": int(u == v)}


def write_data(root) -> None:
    rows = []
    for split, copies in (("train", 16), ("val", 1), ("test", 1)):
        for bits in BITS:
            words = {task: ("no", "yes")[label] for task, label in labels(bits).items()}
            for copy in range(copies):
                name = f"{split}_{''.join('+' if bit > 0 else '-' for bit in bits)}_{copy}.png"
                Image.fromarray(picture(bits)).save(root / name)
                rows.append({"path": name, "split": split, **words})
    with (root / "table.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    (root / "planted.yaml").write_text(TASKS)
    (root / "recipe.yaml").write_text(RECIPE)


@torch.no_grad()
def read_by_head(keep: tuple[bool, ...]) -> list[tuple[float, ...]]:
    """The mean of every channel, for each of the 16 pictures."""
    trunk = timm.create_model("planted_bits")
    image = torch.stack([torch.from_numpy(picture(bits)).permute(2, 0, 1) / 127.5 - 1 for bits in BITS])
    x = trunk.stem(image)
    for name, kept in zip(BLOCKS, keep, strict=True):
        x = getattr(trunk, name)(x) if kept else x
    return [tuple(row) for row in x.mean((2, 3)).tolist()]


def entropy(task: str, keep: tuple[bool, ...]) -> float:
    """H(label | what a head reads), in nats: no head's cross-entropy is smaller."""
    read = read_by_head(keep)
    joint = Counter(zip(read, (labels(bits)[task] for bits in BITS), strict=True))
    alone = Counter(read)
    return sum(-n / len(BITS) * math.log(n / alone[key]) for (key, _), n in joint.items())


@pytest.mark.parametrize("task", PLANTED)
def test_only_the_planted_plan_lets_a_head_answer(task):
    losses = {keep: entropy(task, keep) for keep in product((True, False), repeat=len(BLOCKS))}
    assert losses.pop(PLANTED[task]) == 0
    other = {"a": (True, True, True, False), "b": (True, True, True, False)}[task]
    assert losses.pop(other) == pytest.approx(math.log(2) / 2)  # both answers added: a tie half of the time
    assert list(losses.values()) == pytest.approx([math.log(2)] * 14)


def test_the_planted_plan_is_the_best_of_all_pairs_with_the_regularisers_too():
    rows = list(product((True, False), repeat=len(BLOCKS)))
    losses = {task: {keep: entropy(task, keep) for keep in rows} for task in PLANTED}

    def objective(pair):
        kept_KL = torch.tensor(pair)
        logits_KL2 = torch.stack([~kept_KL, kept_KL], -1).float() * 50
        own = sum(losses[task][row] for task, row in zip(PLANTED, pair, strict=True))
        return own + SPARSITY * sparsity_loss(logits_KL2).item() + SHARING * sharing_loss(logits_KL2).item()

    best, second = sorted(product(rows, rows), key=objective)[:2]
    assert dict(zip(PLANTED, best, strict=True)) == PLANTED
    assert objective(second) - objective(best) > 0.2


@pytest.mark.slow
@pytest.mark.parametrize("curriculum", CURRICULA)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_search_finds_the_planted_plan(tmp_path, seed, curriculum):
    write_data(tmp_path)
    tasks = load_tasks(str(tmp_path / "planted.yaml"), [])
    recipe = load_recipe(str(tmp_path / "recipe.yaml"), [f"seed={seed}", *CURRICULA[curriculum]])
    specs = session.Specs(tasks.spec, recipe.spec, tasks.text, recipe.text)
    training = session.prepare(specs, tmp_path / "run", resume=False, quiet=True)
    assert [block.name for block in training.supernet.blocks] == list(BLOCKS)
    run_stages(training)
    assert training.plan == Plan.from_keep(list(PLANTED), BLOCKS, list(PLANTED.values()))
    assert training.best_score > 0.999  # mean probability of the right answer on val
