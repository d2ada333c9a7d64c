"""Predictions next to labels as PNG files, for the report.

predictions/index.json     [{"id", "image", "tasks": {task: {"label": png | null, "prediction": png}}}]
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from perceptkit.data.batch import collate
from perceptkit.data.source import Source
from perceptkit.train.run_folder import write_atomically, write_json
from perceptkit.train.training import Training


def save_png(path: Path, picture: np.ndarray) -> None:
    """Writes an RGB uint8 picture atomically."""
    write_atomically(path, lambda temporary: Image.fromarray(picture).save(temporary, format="PNG"))


@torch.no_grad()
def write_predictions(folder: Path, training: Training, source: Source, count: int = 8) -> None:
    """Draws `count` images spread over the split, each with its labels and predictions."""
    rows = []
    supernet = training.supernet.eval()
    for number, index in enumerate(np.linspace(0, len(source) - 1, min(count, len(source))).astype(int)):
        sample = source.load(int(index))
        batch = collate([sample], supernet.mean, supernet.std).to(training.fabric.device)
        outputs = training.forward(batch.image_BCHW)
        height, width = sample.image.shape[:2]
        drawn = {}
        for name, task in training.tasks.items():
            prediction = task.decode(outputs[name].float().cpu(), (height, width), (height, width))
            prediction_png = f"{number}_{name}_prediction.png"
            save_png(folder / prediction_png, task.draw(sample.image, prediction))
            target = batch.targets[name].cpu()
            label_png = None
            if bool(task.is_labelled(target)[0]):
                label_png = f"{number}_{name}_label.png"
                label = task.as_prediction(target[0], (height, width))
                save_png(folder / label_png, task.draw(sample.image, label))
            drawn[name] = {"label": label_png, "prediction": prediction_png}
        save_png(folder / f"{number}_image.png", sample.image)
        rows.append({"id": sample.id, "image": f"{number}_image.png", "tasks": drawn})
    write_json(folder / "index.json", rows)
