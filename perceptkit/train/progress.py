"""What a person sees while a run goes on: stage, step, time left, losses and who keeps which block.

On a terminal a live panel; elsewhere one line per epoch.
"""

import time
from collections.abc import Mapping, Sequence
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

SHADES = " .:-=+*#%@"
"""Keep probability 0 to 1, for terminals without colour too."""


def keep_table(keep_prob: Mapping[str, Sequence[float]]) -> Text:
    """Tasks x blocks, a character each: the darker, the more surely the block is kept."""
    text = Text()
    width = max((len(task) for task in keep_prob), default=0)
    for task, row in keep_prob.items():
        cells = "".join(SHADES[min(int(p * len(SHADES)), len(SHADES) - 1)] * 2 for p in row)
        text.append(f"{task:>{width}} [{cells}]\n")
    return text


class Progress:
    """Shows a run; `quiet` shows nothing.

    Args:
        total_steps: of all stages.
        done_steps: taken by an earlier process of the same run.
    """

    def __init__(self, total_steps: int, done_steps: int = 0, quiet: bool = False) -> None:
        self.console = Console(quiet=quiet, highlight=False)
        self.total, self.done, self.first = total_steps, done_steps, done_steps
        self.began = time.monotonic()
        self.keep_prob: Mapping[str, Sequence[float]] = {}
        live = self.console.is_terminal and not quiet
        self.live = Live(console=self.console, refresh_per_second=4) if live else None

    def __enter__(self) -> "Progress":
        if self.live:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.live.stop()

    def step(self, stage: str, epoch: int, epochs: int, losses: Mapping[str, float]) -> None:
        """One step is done."""
        self.done += 1
        if self.live:
            self.live.update(self._panel(stage, epoch, epochs, losses))

    def epoch(self, line: str) -> None:
        """One epoch is done: a line that stays."""
        self.console.print(f"{line}  {self.eta()}", markup=False)

    def say(self, line: str) -> None:
        """Anything else worth a line."""
        self.console.print(line, markup=False)

    def eta(self) -> str:
        """Time left at the mean pace of this process so far."""
        taken = self.done - self.first
        if not taken:
            return ""
        left = (time.monotonic() - self.began) / taken * (self.total - self.done)
        return f"{int(left // 60)}:{int(left % 60):02d} left"

    def _panel(self, stage: str, epoch: int, epochs: int, losses: Mapping[str, float]) -> Group:
        table = Table.grid(padding=(0, 2))
        table.add_row(*(f"{name} {value:.3f}" for name, value in losses.items()))
        title = f"{stage}  epoch {epoch + 1}/{epochs}  step {self.done}/{self.total}  {self.eta()}"
        return Group(Text(title, style="bold"), table, keep_table(self.keep_prob))
