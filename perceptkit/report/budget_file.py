"""budget.json, as the report sees it: what was asked for, and what the decided plan costs."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perceptkit.spec.budget import KINDS

Asked = tuple[str, float]
"""A kind of budget and its amount."""


@dataclass(frozen=True)
class Trial:
    """A plan that was tried on val, for `max_drop`."""

    cost: float
    drop: float
    """Relative loss of quality against all blocks."""


@dataclass(frozen=True)
class BudgetFile:
    """Costs are parts of a hard-shared pass (of its network, for `params`), or milliseconds."""

    kind: str
    asked: float
    cost: float
    """Of the decided plan."""
    most_probable: float
    """Of the plan that the policy would choose by itself."""
    is_within: bool
    """Whether blocks are fine enough to meet it."""
    next_above: float
    """Cost of the next plan above it that was found; infinite where there is none."""
    tried: tuple[Trial, ...]
    ended_with: float | None = None
    """Cost of the plan that the search ended with, where another is shipped: of the best epoch or sample on val."""

    @property
    def distance(self) -> float:
        """Of what was found from what was asked for, as a part of that; NaN where no plan of that cost was tried."""
        found = self.cost
        if self.kind == "max_drop":
            found = next((trial.drop for trial in self.tried if trial.cost == self.cost), math.nan)
        return found / self.asked - 1


def read_budget(file: Path) -> BudgetFile:
    """Raises KeyError, TypeError or ValueError where it is not what a run writes."""
    loaded: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    if loaded["kind"] not in KINDS:
        raise ValueError(f"{loaded['kind']} is no kind of budget")
    above = loaded.get("next_above")
    return BudgetFile(
        kind=str(loaded["kind"]),
        asked=float(loaded["budget"]),
        cost=float(loaded["cost"]),
        most_probable=float(loaded["most_probable"]),
        is_within=bool(loaded["is_within"]),
        next_above=math.inf if above is None else float(above),
        tried=tuple(Trial(float(row["cost"]), float(row["drop"])) for row in loaded["tried"]),
        ended_with=None if loaded.get("search_ended_with") is None else float(loaded["search_ended_with"]),
    )


def asked_in(recipe: Mapping[str, Any]) -> Asked | None:
    """What a resolved recipe asks for; None where it has no budget."""
    section = recipe.get("budget")
    if not isinstance(section, Mapping):
        return None
    return next(((kind, float(section[kind])) for kind in KINDS if section.get(kind) is not None), None)
