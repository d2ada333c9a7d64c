"""The command line: exit codes, messages without tracebacks, and what the small verbs print."""

import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from perceptkit import api, cli, errors
from perceptkit.spec.shipped import list_shipped
from perceptkit.spec.yaml_source import read_yaml
from tests.json_schema import faults

REPOSITORY = Path(__file__).parents[1]
VERBS = (
    *"init check describe train eval predict export benchmark adapt domains compare report".split(),
    *"list schema doctor".split(),
)
TINY = """\
version: 1
name: tiny
data: {source: folder, root: data, image: "{split}/rgb/{id}.png", size: [32, 32]}
tasks:
  seg: {type: segmentation, target: "{split}/seg/{id}.png", classes: 3}
"""


@pytest.fixture
def run(capsys):
    """Runs a command; gives its exit code, stdout and stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        try:
            code = cli.main([str(argument) for argument in arguments])
        except SystemExit as stopped:  # argparse
            code = stopped.code
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return code, printed.out, printed.err

    return run


@pytest.fixture
def tiny(tmp_path, monkeypatch) -> Path:
    """A tasks file with two pictures per split."""
    for split in ("train", "val", "test"):
        for kind in ("rgb", "seg"):
            (tmp_path / "data" / split / kind).mkdir(parents=True)
        for i in range(2):
            values = np.full((32, 32), i, np.uint8)
            Image.fromarray(values).save(tmp_path / f"data/{split}/seg/{i}.png")
            Image.fromarray(np.stack([values * 100] * 3, -1)).save(tmp_path / f"data/{split}/rgb/{i}.png")
    (tmp_path / "tiny.yaml").write_text(TINY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_every_verb(run, verb):
    code, out, _ = run(verb, "--help")
    assert code == 0 and out.startswith(f"usage: perceptkit {verb}")


def test_help_names_every_verb(run):
    code, out, _ = run("--help")
    assert code == 0
    assert [
        line.split()[0] for line in out.splitlines() if line.startswith("    ") and line[4] != " "
    ] == list(VERBS)


def test_version(run):
    assert run("--version")[:2] == (0, f"perceptkit {metadata.version('perceptkit')}\n")


def test_version_of_a_source_tree(run, monkeypatch):
    def not_installed(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", not_installed)
    assert run("--version")[:2] == (0, "perceptkit not installed\n")
    assert run("list", "tasks")[0] == 0


def test_unknown_verb(run):
    code, _, err = run("trian")
    assert code == 2 and "invalid choice: 'trian'" in err


def test_no_verb(run):
    code, _, err = run()
    assert code == 2 and "VERB" in err


def test_check_passes(run, tiny):
    code, out, err = run("check", "tiny.yaml")
    assert (code, err) == (0, "") and out.endswith("\nok\n")


def test_check_finds_a_wrong_label(run, tiny):
    Image.fromarray(np.full((32, 32), 7, np.uint8)).save(tiny / "data/val/seg/1.png")
    code, out, _ = run("check", "tiny.yaml")
    assert code == 3
    assert "val/seg/1.png holds class id 7; 3 classes are declared; 255 is ignored" in out
    assert out.endswith("Nothing was started.\n")


def test_check_prints_json_and_writes_a_fix_list(run, tiny):
    Image.fromarray(np.full((32, 32), 7, np.uint8)).save(tiny / "data/val/seg/1.png")
    code, out, err = run("check", "tiny.yaml", "--json", "--fix-list", "fix.tsv")
    found = json.loads(out)
    assert (code, err) == (3, "")
    assert found["splits"]["val"] == {"images": 2, "opened": 2, "labels": {"seg": 2}}
    assert found["classes"]["seg"]["val"]["0"] == {"pictures": 1, "pixels": 32 * 32}
    assert [bad["id"] for bad in found["bad"] if bad["split"] == "val" and "class id 7" in bad["reason"]] == [
        "1"
    ]
    assert len((tiny / "fix.tsv").read_text().splitlines()) == len(found["bad"])


@pytest.mark.parametrize("verb", ["check", "describe", "train"])
def test_every_problem_of_both_files(run, tiny, verb):
    (tiny / "tiny.yaml").write_text(TINY.replace("classes", "clases"))
    (tiny / "mine.yaml").write_text("backbone: {nam: resnet18}\nstages: [{name: retrain, epochs: 1}]\n")
    code, out, err = run(verb, "tiny.yaml", "--recipe", "mine.yaml")
    assert code == 2 and out == ""
    assert "tiny.yaml:5:" in err and "did you mean 'classes'?" in err
    assert "mine.yaml:1:" in err and "did you mean 'name'?" in err
    assert err.endswith("Nothing was started.\n")


def test_a_broken_yaml_file(run, tmp_path):
    (tmp_path / "broken.yaml").write_text("version: 1\nname: [a, b\ndata: {}\n")
    code, _, err = run("check", tmp_path / "broken.yaml")
    assert code == 2 and "broken.yaml:3:" in err and "list opened in line 2" in err


def test_a_wrong_override(run):
    code, _, err = run("check", "scenes", "--set", "data.sed=1")
    assert code == 2 and "did you mean" in err


@pytest.mark.parametrize(
    "command",
    [
        ["check", "nothing.yaml"],
        ["describe", "nothing.yaml"],
        ["train", "nothing.yaml"],
        ["train"],
        ["train", "--resume"],
        ["train", "--resume", "--out", "nothing"],
        ["eval", "nothing", "--data", "tiny.yaml"],
        ["eval", "nothing"],
        ["predict", "nothing", "data/test/rgb/0.png"],
        ["export", "nothing"],
        ["export", "nothing", "--format", "tflite"],
        ["compare", "nothing"],
        ["compare", "nothing", "--markdown", "--out", "there"],
        ["compare", "nothing", "--count", "miou"],
        ["report", "nothing"],
        ["init", "--data", "nothing", "-o", "t.yaml"],
        ["init", "-o", "tiny.yaml"],
    ],
    ids=" ".join,
)
def test_wrong_usage(run, tiny, command):
    code, out, err = run(*command)
    assert code == 2 and out == "" and err.count("\n") >= 1
    assert "nothing" not in command or "nothing" in err or {"tflite", "--markdown", "--count"} & set(command)


def test_no_picture_to_predict_on(run, tiny):
    code, out, err = run("predict", "nothing", "none/*.png")
    assert code == 3 and out == "" and "none/*.png" in err


def test_describe_stops_at_labels_that_are_missing(run, tiny):
    for path in (tiny / "data/train/seg").iterdir():
        path.unlink()
    code, _, err = run("describe", "tiny.yaml")
    assert code == 3 and "no picture of train has a label" in err


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (errors.PerceptkitError("the loss of seg is not finite"), 1),
        (errors.SpecError("wrong"), 2),
        (errors.DataError("wrong"), 3),
        (KeyboardInterrupt(), 130),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_exit_codes(run, monkeypatch, raised, code):
    def fail(*_):
        raise raised

    monkeypatch.setattr(api, "check", fail)
    got, _, err = run("check", "scenes")
    assert got == code and err == f"{str(raised) or 'interrupted'}\n"


def test_a_reader_that_goes_away(tmp_path):
    command = f"set -o pipefail; {sys.executable} -m perceptkit.cli schema tasks | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.stdout == "{\n" and "Traceback" not in done.stderr


def test_init_then_check(run, tiny):
    code, out, _ = run("init", "--data", "data", "-o", "new/tasks.yaml")
    assert code == 0 and out == "wrote new/tasks.yaml; next: perceptkit check new/tasks.yaml\n"
    assert run("check", "new/tasks.yaml")[0] == 0


def test_init_without_data(run, tiny):
    assert run("init", "-o", "mine.yaml")[0] == 0
    code, _, err = run("check", "mine.yaml")
    assert code == 2 and "1 problem\n" in err and "no such folder" in err


@pytest.mark.parametrize("kind", ["tasks", "recipes"])
def test_list_shipped_files(run, kind):
    code, out, _ = run("list", kind)
    assert code == 0 and out.splitlines() == list_shipped(kind)


def test_list_formats(run):
    assert run("list", "formats")[:2] == (0, "artifact\ntorch\naoti\nonnx\n")


@pytest.mark.parametrize(
    ("kind", "pattern", "found"),
    [
        ("tasks", "sc*", ["scenes"]),
        ("recipes", "*r*d*", ["hard"]),
        ("formats", "o*", ["onnx"]),
        ("backbones", "resnet18*", ["resnet18", "resnet18d"]),
        ("backbones", "resnet18.*", ["resnet18.a1_in1k", "resnet18.tv_in1k"]),
        ("backbones", "cifar10*", ["cifar10_resnet20", "cifar10_resnet110"]),
    ],
)
def test_list_by_pattern(run, kind, pattern, found):
    code, out, _ = run("list", kind, pattern)
    assert code == 0 and set(found) <= set(out.splitlines())
    code, out, err = run("list", kind, "nothing*")
    assert code == 2 and out == "" and "nothing*" in err


def test_list_gateable(run):
    """A row for each that can be gated; the others are named, with the reason, on the other stream."""
    code, out, err = run("list", "backbones", "--gateable", "test_[nr]*net")
    assert code == 0 and len(out.splitlines()) == 1
    assert re.fullmatch(
        r"test_resnet +1 identity +3 shortcut +52\.\d% of MACs +strides 4 8 16 32 +channels 32 48 192 96\n",
        out,
    )
    assert "test_nfnet (0.2 M) cannot be gated: NormFreeBlock, 35% of its parameters: " in err
    assert "changes the shape, and has no projection that runs alone; try starnet_s050 (0.4 M), " in err
    assert run("list", "backbones", "test_[nr]*net", "--gateable")[:2] == (code, out)


def test_a_backbone_with_the_tag_of_its_weights(run):
    code, out, _ = run("list", "backbones", "--gateable", "test_resnet.r160_in1k")
    assert code == 0 and out.startswith("test_resnet.r160_in1k    1 identity   3 shortcut")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["backbones", "--gateable", "test_nfnet"], "can be gated\n  test_nfnet (0.2 M) "),
        (["backbones", "--gateable", "test_nfnet"], "; try starnet_s050 (0.4 M), mobilenetv3_small_050"),
        (["backbones", "--gateable", "nothing*"], "none of the backbones matches 'nothing*'"),
        (["tasks", "--gateable"], "--gateable is a question to backbones"),
    ],
)
def test_list_gateable_with_nothing_to_list(run, arguments, reason):
    code, out, err = run("list", *arguments)
    assert code == 2 and out == "" and reason in err


@pytest.mark.parametrize(("what", "folder"), [("tasks", "tasks"), ("recipe", "recipes")])
def test_the_schema_accepts_the_shipped_files(run, what, folder):
    code, out, _ = run("schema", what)
    schema = json.loads(out)
    assert code == 0 and schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    files = sorted((REPOSITORY / folder).glob("*.yaml"))
    assert files
    for path in files:
        content = read_yaml(path.read_text(), path.name).data  # PyYAML reads 1e-3 as text
        assert faults(schema, content, schema) == [], path
        assert faults(schema, {**content, "extra": 1}, schema)
        assert faults(schema, {**content, "version": 2}, schema)


def test_schema_of_tasks_is_the_default(run):
    assert run("schema") == run("schema", "tasks")


def test_doctor(run):
    code, out, _ = run("doctor")
    assert code == 0 and "ok    torch " in out


def test_a_place_that_cannot_be_written(run, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = run("init", "-o", str(tmp_path / "file/tasks.yaml"))
    assert code in (1, 2) and str(tmp_path / "file") in err and "Traceback" not in err


def test_train_checks_the_data_first(run, tmp_path, monkeypatch):
    """Problems stop it, warnings are said: here a picture is labelled in train only."""
    for split in ("train", "val", "test"):
        (tmp_path / split).mkdir()
        Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / split / "1.png")
    tasks = tmp_path / "t.yaml"
    tasks.write_text(
        'version: 1\nname: t\ndata: {source: folder, root: ., image: "{split}/{id}.png", size: [32, 32]}\n'
        'tasks:\n  depth: {type: depth, target: "{split}_depth/{id}.npy"}\n'
    )
    (tmp_path / "train_depth").mkdir()
    np.save(tmp_path / "train_depth/1.npy", np.ones((32, 32), np.float32))
    started = []
    monkeypatch.setattr(api, "train", lambda *arguments, **more: started.append(1))
    _, _, err = run("train", str(tasks), "--dry-run")
    assert started == [1] and "warning: " in err and "val" in err
    (tmp_path / "train_depth/1.npy").write_bytes(b"no array")
    code, _, err = run("train", str(tasks), "--dry-run")
    assert code == 3 and "1.npy" in err and started == [1]
