"""Made-up run folders for the report's tests."""

from collections.abc import Callable
from pathlib import Path

import pytest

from perceptkit.report.plots import write_plots
from perceptkit.report.run_folder import Run, read_run
from tests.report.fake_run import make_run


@pytest.fixture
def run_of(tmp_path: Path) -> Callable[..., Run]:
    """Makes a run folder below the test's own folder and reads it: `run_of("name", method="hard")`."""

    def make(name: str, **how: object) -> Run:
        return read_run(make_run(tmp_path / name, **how))  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished AdaShare run of six tasks, to be read only."""
    return read_run(make_run(tmp_path_factory.mktemp("runs") / "finished"))


@pytest.fixture(scope="session")
def plots(finished: Run) -> dict[str, dict[str, Path]]:
    """All plots of `finished`, by name and theme."""
    return write_plots(finished, finished.path / "plots")
