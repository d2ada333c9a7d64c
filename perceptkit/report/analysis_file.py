"""affinity.json and lesion.json as the report sees them, and what the log says of how decided a policy is.

Written by baselines/sharing/affinity.py and train/lesion.py.

Shapes: K tasks, L blocks.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Affinity:
    """affinity.json."""

    split: str
    pictures: int
    tasks: tuple[str, ...]
    affinity_KK: np.ndarray
    by_chance_KK: np.ndarray


@dataclass(frozen=True)
class Outcome:
    """What a broken network still does."""

    quality: Mapping[str, float]
    """By task, in [0, 1]."""
    score: float
    """The mean over tasks."""


@dataclass(frozen=True)
class Lesions:
    """lesion.json."""

    split: str
    pictures: int
    tasks: tuple[str, ...]
    blocks: tuple[str, ...]
    intact: Outcome
    deleted: Mapping[str, Outcome]
    """By block; those that no task keeps are not in it."""
    random: Mapping[int, Sequence[Outcome]]
    """By number of deleted blocks, an outcome per draw."""
    reordered: Sequence[tuple[float, Outcome]]
    """Kendall's tau and what came of it."""


def read_affinity(file: Path) -> Affinity:
    """Raises KeyError, TypeError or ValueError where the file is not what it should be."""
    loaded = json.loads(file.read_text(encoding="utf-8"))
    tasks = tuple(map(str, loaded["tasks"]))
    affinity_KK, by_chance_KK = (np.array(loaded[key], dtype=float) for key in ("affinity", "by_chance"))
    if affinity_KK.shape != (len(tasks), len(tasks)) or by_chance_KK.shape != affinity_KK.shape:
        raise ValueError("the matrix does not fit the tasks")
    return Affinity(str(loaded["split"]), int(loaded["pictures"]), tasks, affinity_KK, by_chance_KK)


def read_lesions(file: Path) -> Lesions:
    """Raises KeyError, TypeError or ValueError where the file is not what it should be."""
    loaded = json.loads(file.read_text(encoding="utf-8"))
    random: dict[int, list[Outcome]] = {}
    for row in loaded["random"]:
        random.setdefault(int(row["count"]), []).append(_outcome(row))
    return Lesions(
        str(loaded["split"]),
        int(loaded["pictures"]),
        tuple(map(str, loaded["tasks"])),
        tuple(map(str, loaded["blocks"])),
        _outcome(loaded["intact"]),
        {str(row["block"]): _outcome(row) for row in loaded["deleted"]},
        dict(sorted(random.items())),
        sorted(((float(row["tau"]), _outcome(row)) for row in loaded["reordered"]), key=lambda r: -r[0]),
    )


def _outcome(row: Mapping[str, Any]) -> Outcome:
    quality = {task: _number(value) for task, value in row["quality"].items()}
    return Outcome(quality, _number(row["score"]))


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def entropy_bits(keep_prob: np.ndarray) -> np.ndarray:
    """Entropy of keep or skip by its probability, in bits: 1 where nothing is decided, 0 where all is.

    >>> entropy_bits(np.array([0.5, 1.0, 0.25])).round(3).tolist()
    [1.0, 0.0, 0.811]
    """
    a = np.asarray(keep_prob, dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = [np.where(p > 0, p * np.log2(p), 0.0) for p in (a, 1 - a)]
    return 0.0 - terms[0] - terms[1]


def open_keep_prob(row: Mapping[str, Any]) -> tuple[tuple[str, ...], np.ndarray]:
    """Tasks and (K, L) keep probabilities of the blocks that the curriculum has opened, of one row of the log."""
    tasks = tuple(row["keep_prob"])
    keep_KL = np.array([row["keep_prob"][task] for task in tasks], dtype=float)
    count = row.get("open_blocks")
    return tasks, keep_KL[:, -count:] if isinstance(count, int) and count > 0 else keep_KL


def policy_correlation(keep_KL: np.ndarray) -> np.ndarray:
    """Pearson correlation of the tasks' keep probabilities over blocks, (K, K); NaN for a task with equal ones."""
    centred_KL = keep_KL - keep_KL.mean(axis=1, keepdims=True)
    length_K = np.sqrt((centred_KL**2).sum(axis=1))
    length_K[length_K < 1e-9] = np.nan
    return (centred_KL @ centred_KL.T) / np.outer(length_K, length_K)
