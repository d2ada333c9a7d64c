"""The section `budget` of a recipe."""

from collections.abc import Mapping, Sequence

from pydantic import PositiveFloat, model_validator

from perceptkit.spec.strict import Fraction, Strict, fault

KINDS = ("macs", "params", "latency_ms", "max_drop")


class BudgetSpec(Strict):
    """What all tasks on one picture may cost together: one of `macs`, `params`, `latency_ms` and `max_drop`.

    The stage `search` holds the policy at it, and the plan is decided within 2 % of it. A budget beyond one hard-shared
    pass is a limit only: what costs less is left as it is, down to one such pass. Beside a budget
    `sharing.sparsity` no longer says how much is skipped, since the multiplier holds against what it adds: it still
    pushes what is nearly skipped further down, whatever the block costs. `sharing.sharing` still pulls tasks together
    early in the network, beyond what that saves.
    """

    macs: PositiveFloat | None = None
    """Part of the MACs of one hard-shared pass, neck and heads included, for example 0.7."""
    params: PositiveFloat | None = None
    """Part of the parameters of the hard-shared network, neck and heads included."""
    latency_ms: PositiveFloat | None = None
    """Milliseconds for one picture, as the sum over a table of blocks that is measured before training begins."""
    device: str | None = None
    """Where `latency_ms` is measured; `cpu` by default."""
    max_drop: Fraction | None = None
    """Largest loss of quality on val, relative and averaged over tasks, against all blocks kept, for example 1%; the
    plan of fewest MACs is sought. Both are measured with the weights at the end of the search."""

    @property
    def kind(self) -> str:
        """Which of the four it is."""
        return next(key for key in KINDS if getattr(self, key) is not None)

    @property
    def amount(self) -> float:
        """Its value."""
        return float(getattr(self, self.kind))

    @model_validator(mode="after")
    def _one_kind(self) -> "BudgetSpec":
        if found := kind_fault(self.model_dump()):
            raise fault(*found)
        return self


def kind_fault(written: Mapping[str, object]) -> tuple[str, str] | None:
    """What is wrong with the keys of a budget together, as (key, message); None where nothing is."""
    given = [key for key in KINDS if written.get(key) is not None]
    if not given:
        return "macs", f"missing: expected one of {', '.join(KINDS)}, for example {{macs: 0.7}}"
    if len(given) > 1:
        return given[1], f"{given[0]} is given too; a budget has one of {', '.join(KINDS)}"
    if written.get("device") is not None and given != ["latency_ms"]:
        return "device", "is where latency_ms is measured; drop it"
    return None


def budget_stage_fault(kind: str, names: Sequence[str]) -> str:
    """What is wrong with the stages of a recipe with a budget; nothing is wrong with anything else here."""
    if "search" not in names:
        return "a budget is solved for in the stage 'search', and there is none"
    if kind == "max_drop" and names[-1] == "search":
        return "max_drop is solved for at the end of the search: a stage 'retrain' must follow, to train its plan"
    return ""
