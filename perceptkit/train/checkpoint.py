"""Checkpoints: everything that the next step depends on, loadable with `weights_only=True`."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from perceptkit.errors import ResumeError
from perceptkit.train.run_folder import write_atomically


@dataclass
class Position:
    """Where the loop is: the next step to run."""

    stage: int = 0
    epoch: int = 0
    turn: int = 0
    """Within an epoch: the search alternates between turns of the weights and turns of the policy."""
    batch: int = 0
    """Within a turn."""
    stage_step: int = 0
    """Weight steps taken in this stage; the learning rate depends on it."""
    step: int = 0
    """Steps of any kind since the run began."""
    sample: int = 0
    """Within a stage that is run for several plans: which of them, in the order of their queue."""

    def next_turn(self) -> None:
        """Moves to the first batch of the next turn."""
        self.turn, self.batch = self.turn + 1, 0

    def next_epoch(self) -> None:
        """Moves to the first turn of the next epoch."""
        self.epoch, self.turn, self.batch = self.epoch + 1, 0, 0

    def next_sample(self) -> None:
        """Moves to the first epoch of the same stage, for the next plan."""
        self.sample, self.epoch, self.turn, self.batch, self.stage_step = self.sample + 1, 0, 0, 0, 0

    def next_stage(self) -> None:
        """Moves to the first epoch of the next stage."""
        self.stage, self.epoch, self.turn, self.batch, self.stage_step = self.stage + 1, 0, 0, 0, 0
        self.sample = 0


def save(path: Path, state: dict[str, Any], position: Position) -> None:
    """Writes state and position atomically."""
    write_atomically(path, lambda temporary: torch.save({**state, "position": asdict(position)}, temporary))


def load(path: Path) -> tuple[dict[str, Any], Position]:
    """Reads what `save` wrote, on the CPU. Raises ResumeError where that is not possible."""
    if not path.is_file():
        raise ResumeError(f"nothing to resume from: {path} does not exist")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        return state, Position(**state.pop("position"))
    except ResumeError:
        raise
    except Exception as error:  # torch raises many types for a damaged file
        raise ResumeError(f"{path} cannot be read: {error}") from error
