"""tools/backbones.py: nothing is hidden, runs are merged, and what does not come back costs one cell."""

import json
import pkgutil
import sys
from pathlib import Path

import pytest
import timm

import perceptkit.model
from perceptkit.model.weights import backbone_names

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))  # scripts, not a package

import backbones

FACTS = {"identity": 5, "shortcut": 3, "macs": 1, "share": 0.924, "strides": [4, 8], "channels": [64, 128]}


def cell(found, ok=True, **more):
    return {"ok": ok, "found": found, "seconds": 1.0, **more}


def test_the_page_shows_failures_and_refusals_with_their_reason():
    page = backbones.page(
        {
            "resnet18": {
                "blocks": cell(FACTS),
                "equal": cell("features, 3 of 5 maps among forward_intermediates"),
                "skip": cell("8 of 8 blocks"),
                "copies": cell("keys"),
                "export": cell("0.0e+00"),
                "onnx": cell("largest difference 1.0e-01, bound 1e-04", ok=False),
            },
            "vgg11": {"blocks": cell("no residual block", ok=False, refused=True)},
        }
    )
    assert (
        "| ResNet | `resnet18` | 5 | 3 | 0.92 | 4 8 | 64 128 | yes | 3/5 | yes | yes | 0.0e+00 | - | **no** | - |\n"
        in page
    )
    assert "* `resnet18`, onnx: largest difference 1.0e-01, bound 1e-04\n" in page
    assert "| VGG | `vgg11` | no residual block |\n" in page
    waiting = page.split("## Not measured\n\n")[1]
    assert "`resnet50`" in waiting and "`resnet18`" not in waiting and "`vgg11`" not in waiting
    header = next(line for line in page.splitlines() if line.startswith("| family | model | identity"))
    assert header.count("|") == 16


def test_every_architecture_file_of_timm_has_a_row():
    """A file that no row is of would be hidden: whoever reads the page could not tell gated from refused."""
    shown = {name for names in backbones.MODELS.values() for name in names}
    shipped = {
        m.name for package in (timm.models, perceptkit.model) for m in pkgutil.iter_modules(package.__path__)
    }
    hidden = [
        file
        for file in shipped.intersection(timm.list_modules())  # other tests make models of their own
        if (names := set(timm.list_models(module=file))) and not names & shown
    ]
    assert hidden == []
    assert shown <= set(backbone_names())
    assert len(shown) == sum(map(len, backbones.MODELS.values()))


def test_runs_are_merged(tmp_path, monkeypatch):
    monkeypatch.setattr(backbones, "MODELS", {"ResNet": ["resnet18"]})
    asked = []

    def check(name, columns, backend, timeout):
        asked.append(list(columns))
        yield from ((column, cell(FACTS if column == "blocks" else column)) for column in columns)

    monkeypatch.setattr(backbones, "check", check)
    for columns in (["blocks"], ["blocks", "skip"]):
        arguments = ["backbones.py", "--docs", str(tmp_path), "--missing", "--columns", *columns]
        monkeypatch.setattr(sys, "argv", arguments)
        assert backbones.main() == 0
    assert asked == [["blocks"], ["skip"]]
    assert set(json.loads((tmp_path / "backbones.json").read_text())["resnet18"]) == {"blocks", "skip"}
    assert "`resnet18`" in (tmp_path / "backbones.md").read_text()


@pytest.mark.slow
def test_a_model_is_measured_in_a_process_of_its_own():
    found = dict(backbones.check("test_resnet", ["blocks", "equal"], "eager", 300))
    assert found["blocks"]["ok"] and found["blocks"]["found"]["shortcut"] == 3
    assert found["equal"]["ok"] and found["equal"]["size"] == [64, 64]


@pytest.mark.slow
def test_what_ends_or_does_not_come_back_costs_its_cell():
    found = dict(backbones.check("no_such_model", ["blocks"], "eager", 300))
    assert found["blocks"]["ok"] is False
    late = dict(backbones.check("test_resnet", ["skip"], "eager", 0.01))
    assert late == {"skip": {"ok": False, "found": "not done in 0 s"}}
