"""The run log: metrics.jsonl (append-only), metrics.csv (the same, flat) and log.txt.

After a crash the log may hold rows of steps that will be run again; `RunLog(run, upto_step)` drops
them, so that a resumed run leaves the same log as an uninterrupted one.
"""

import csv
import io
import json
from pathlib import Path
from typing import Any

from perceptkit.train.run_folder import write_text


class RunLog:
    """Appends rows to a run's log; `enabled=False` (ranks other than 0) writes nothing."""

    def __init__(self, run: Path, upto_step: int | None = None, enabled: bool = True) -> None:
        self.path, self.csv_path, self.text_path = run / "metrics.jsonl", run / "metrics.csv", run / "log.txt"
        self.enabled = enabled
        if enabled and upto_step is not None and self.path.exists():
            rows = [row for row in read_rows(self.path) if row["step"] <= upto_step]
            write_text(self.path, "".join(json.dumps(row) + "\n" for row in rows))

    def row(self, kind: str, stage: str, epoch: int, step: int, **values: Any) -> None:
        """One object a line; what the values mean is said by `kind`: train, val, policy."""
        if self.enabled:
            line = json.dumps({"kind": kind, "stage": stage, "epoch": epoch, "step": step, **values})
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")

    def say(self, text: str) -> None:
        """A line for log.txt."""
        if self.enabled:
            with self.text_path.open("a", encoding="utf-8") as file:
                file.write(text + "\n")

    def write_csv(self) -> None:
        """metrics.csv: a column for every scalar that any row has."""
        if not self.enabled or not self.path.exists():
            return
        rows = [{k: v for k, v in row.items() if not isinstance(v, dict)} for row in read_rows(self.path)]
        columns = list(dict.fromkeys(key for row in rows for key in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.csv_path, text.getvalue())


def read_rows(path: Path) -> list[dict[str, Any]]:
    """All whole rows; a last line cut short by a crash is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows
