"""What `predict` returns: one Prediction per task, in the picture's own size and the user's units."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from perceptkit.tasks.base import Prediction, Task


@dataclass(frozen=True)
class Result(Mapping[str, Prediction]):
    """Behaves like a dict from task name to Prediction."""

    image: np.ndarray
    """RGB uint8 (H, W, 3)."""
    predictions: Mapping[str, Prediction]
    tasks: Mapping[str, Task]
    name: str = "picture"

    def __getitem__(self, task: str) -> Prediction:
        return self.predictions[task]

    def __iter__(self) -> Iterator[str]:
        return iter(self.predictions)

    def __len__(self) -> int:
        return len(self.predictions)

    def plot(self) -> np.ndarray:
        """One RGB uint8 picture: the input and every task's drawing side by side."""
        panels = [self.image] + [self.tasks[t].draw(self.image, p) for t, p in self.predictions.items()]
        gap = np.full((self.image.shape[0], max(2, self.image.shape[1] // 64), 3), 255, np.uint8)
        row = [part for panel in panels for part in (panel, gap)][:-1]
        return np.concatenate(row, axis=1)

    def save(self, folder: str | Path) -> list[Path]:
        """Writes NAME.png (the plot), NAME.TASK.png, arrays as NAME.TASK.KEY.npy, the rest as NAME.json."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        written = [folder / f"{self.name}.png"]
        Image.fromarray(self.plot()).save(written[0])
        plain: dict[str, Any] = {}
        for task, prediction in self.predictions.items():
            path = folder / f"{self.name}.{task}.png"
            Image.fromarray(self.tasks[task].draw(self.image, prediction)).save(path)
            written.append(path)
            for key, value in prediction.values.items():
                if isinstance(value, np.ndarray) and value.ndim >= 2:
                    written.append(folder / f"{self.name}.{task}.{key}.npy")
                    np.save(written[-1], value)
                else:
                    plain.setdefault(task, {})[key] = value
        written.append(folder / f"{self.name}.json")
        written[-1].write_text(json.dumps(plain, indent=1, default=_plain) + "\n", encoding="utf-8")
        return written


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON")
