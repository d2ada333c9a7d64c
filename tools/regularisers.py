"""AdaShare's two regularisers on inputs that a person can check: the table of docs/data.md.

    python tools/regularisers.py

Columns "paper" and "code" are formulas of plain numbers, written here a second time from the facts in
perceptkit/policies/adashare.py; the authors' code itself is not run. The other two are what perceptkit computes.
"""

import math
from collections.abc import Sequence
from itertools import combinations, permutations
from typing import TypeAlias

import torch

from perceptkit.policies.adashare import AdaSharePolicy, Formulation

Logits: TypeAlias = Sequence[Sequence[tuple[float, float]]]
"""(skip, keep) by task and block, the block next to the image first."""


def of_probabilities(*rows: Sequence[float]) -> Logits:
    """Logits log(1 - a) and log a, whose softmax is (1 - a, a)."""
    return [[(math.log(1 - a), math.log(a)) for a in row] for row in rows]


TWO_TASKS = of_probabilities([0.9, 0.2], [0.5, 0.6])
THREE_TASKS: Logits = [[(0, 2), (1, 1)], [(0, -1), (3, 0.5)], [(5, 0), (0, 4)]]
SHIFTED: Logits = [[(skip + 1, keep + 1) for skip, keep in THREE_TASKS[0]], *THREE_TASKS[1:]]
INPUTS = {
    "a = 0.9 0.2 / 0.5 0.6, logits log(1 - a) and log a": TWO_TASKS,
    "(skip, keep) logits (0, 2) (1, 1) / (0, -1) (3, 0.5) / (5, 0) (0, 4)": THREE_TASKS,
    "the same, 1 added to all logits of the first task": SHIFTED,
}


def probability(logits: tuple[float, float]) -> float:
    """a."""
    skip, keep = logits
    return 1 / (1 + math.exp(skip - keep))


def paper(z: Logits) -> tuple[float, float]:
    """(L_sparsity, L_sharing) as the paper prints them; ordered pairs, so each counts twice."""
    a = [[probability(logits) for logits in row] for row in z]
    L = len(a[0])
    sharing = sum(
        (L - l) / L * abs(one[l - 1] - other[l - 1])
        for one, other in permutations(a, 2)
        for l in range(1, L + 1)  # noqa: E741  # the paper's letter
    )
    return sum(math.log(p) for row in a for p in row), sharing


def code(z: Logits) -> tuple[float, float]:
    """(L_sparsity, L_sharing) as the authors' code has them, with all blocks open."""
    L = len(z[0])
    sparsity = sum(-sum(math.log(1 - probability(logits)) for logits in row) / L for row in z)
    sharing = sum(
        l / L * abs(one[l - 1][1] - other[l - 1][1])
        for one, other in combinations(z, 2)
        for l in range(1, L + 1)  # noqa: E741  # the paper's letter
    )
    return sparsity, sharing


def ours(z: Logits, formulation: Formulation) -> tuple[float, float]:
    """(L_sparsity, L_sharing) of the policy, all blocks open."""
    policy = AdaSharePolicy(
        [str(k) for k in range(len(z))], [str(b) for b in range(len(z[0]))], 0, formulation
    )
    with torch.no_grad():
        policy.policy_logits_KL2.copy_(torch.tensor(z))
        sparsity, sharing = policy.regularisers(len(z[0]))
    return sparsity.item(), sharing.item()


def table() -> list[tuple[str, str, tuple[float, float, float, float]]]:
    """(loss, input, numbers of the four columns)."""
    rows = []
    for i, loss in enumerate(("sparsity", "sharing")):
        for words, z in INPUTS.items():
            numbers = (paper(z)[i], code(z)[i], ours(z, "paper")[i], ours(z, "reference_code")[i])
            rows.append((loss, words, numbers))
    return rows


def as_markdown() -> str:
    """The table."""
    lines = [
        "| loss | tasks / blocks | paper | code | `paper` here | `reference_code` here |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for loss, words, numbers in table():
        lines.append(f"| {loss} | {words} | {' | '.join(f'{number:.6f}' for number in numbers)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(as_markdown())
