"""perceptkit: from a YAML list of perception tasks to one small, fast, verified multi-head model.

Importing the package loads neither torch nor anything else that is slow; the verbs do when called.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perceptkit.api import (
        adapt,
        add_domain,
        benchmark,
        build,
        check,
        compare,
        decathlon_score,
        describe,
        domains,
        evaluate,
        export,
        index,
        load,
        remove_domain,
        report,
        summary,
        sweep_budgets,
        train,
    )

__all__ = [
    "adapt",
    "add_domain",
    "benchmark",
    "build",
    "check",
    "compare",
    "decathlon_score",
    "describe",
    "domains",
    "evaluate",
    "export",
    "index",
    "load",
    "remove_domain",
    "report",
    "summary",
    "sweep_budgets",
    "train",
]


class _Package(ModuleType):
    """Keeps the verb `report` when Python, importing the subpackage of that name, would put it in its place."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in __all__ and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("perceptkit.api"), name)
    raise AttributeError(f"module 'perceptkit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
