"""What the code promises as a whole: layers, light imports, papers with tests, files that load, a surface."""

import argparse
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from perceptkit.cli import make_parser
from perceptkit.spec.load import load_recipe, load_tasks
from tests.coco_files import write_coco
from tests.layout_files import write_cityscapes_mtan, write_nyuv2, write_taskonomy
from tests.listed_files import write_class_folders, write_decathlon
from tests.packed_files import write_shards

REPOSITORY = Path(__file__).parents[1]
WRITERS = {
    "nyuv2": write_nyuv2,
    "cityscapes": lambda root: write_cityscapes_mtan(root, lists=True),
    "taskonomy": write_taskonomy,
    "coco": lambda root: write_coco(root, train=30),
}
SPECS = ["TASKS", "--recipe", "--set"]
SURFACE = {
    "init": ["--data", "--out"],
    "check": [*SPECS, "--everything", "--fix-list", "--json"],
    "describe": [*SPECS, "--json"],
    "train": [*SPECS, "--out", "--resume", "--dry-run", "--budget-sweep"],
    "eval": ["RUN|ARTIFACT", "--data", "--split", "--domain", "--set"],
    "predict": ["RUN|ARTIFACT", "SOURCE", "--domain", "--tasks", "--save", "--neighbours"],
    "export": [
        "RUN|ARTIFACT",
        "--format",
        "--int8",
        "--precision",
        "--per-task",
        "--data",
        "--pictures",
        "--max-drop",
        "--dynamic-skip",
        "--policies",
        "--nearest",
        "--device",
        "--optimize",
        "--out",
    ],  # fmt: skip
    "benchmark": [
        "RUN|ARTIFACT",
        "--batch",
        "--rounds",
        "--variants",
        "--baseline",
        "--data",
        "--split",
        "--device",
        "--out",
    ],
    "adapt": ["RUN", "TASKS", "--method", "--recipe", "--out", "--dry-run", "--set"],
    "domains": ["RUN|ARTIFACT", "--add", "--name", "--remove"],
    "compare": ["RUN", "--baseline", "--latency", "--count", "--markdown", "--out"],
    "report": ["RUN", "--baseline", "--markdown", "--lesion"],
    "list": ["what", "pattern", "--gateable"],
    "schema": ["what"],
    "doctor": [],
}


def test_verbs_and_flags():
    """Changing the surface is a deliberate, one-line change of SURFACE."""
    verbs = next(a for a in make_parser()._actions if isinstance(a, argparse._SubParsersAction)).choices
    found = {
        verb: [
            action.option_strings[-1] if action.option_strings else str(action.metavar or action.dest)
            for action in parser._actions
            if action.dest != "help"
        ]
        for verb, parser in verbs.items()
    }
    assert found == SURFACE


def test_layers():
    command = Path(sys.executable).with_name("lint-imports")
    if not command.is_file():
        pytest.skip("import-linter is not installed")
    done = subprocess.run([command, "--no-cache"], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    "code",
    [
        "import perceptkit, perceptkit.spec, perceptkit.report, perceptkit.runtime, perceptkit.train",
        "main(['--help'])",
        "main(['check', 'scenes'])",
        "main(['check', 'folder.yaml', '--everything'])",
        "main(['check', 'classes.yaml', '--everything'])",
        "main(['check', 'nyuv2', '--recipe', 'nyuv2_adashare', '--set', 'data.root=nyuv2'])",
        "main(['check', 'decathlon', '--set', 'data.root=decathlon', 'data.domain=gtsrb'])",
        "main(['check', 'coco', '--set', 'data.root=coco', 'data.hold_out=25%'])",
        "main(['check', 'table.yaml'])",
        "main(['check', 'shards.yaml', '--everything'])",
        "main(['init', '--data', 'shards', '-o', 'new.yaml'])",
        "main(['init', '--data', 'data', '-o', 'new.yaml'])",
        "main(['schema', 'recipe']); main(['list', 'recipes'])",
    ],
)
def test_light_commands_do_not_load_torch(tmp_path, code):
    tasks = "seg: {type: segmentation, target: '{split}/seg/{id}.png', classes: 2}"
    data = "{source: folder, root: data, image: '{split}/rgb/{id}.png', size: [32, 32]}"
    (tmp_path / "folder.yaml").write_text(f"name: x\ndata: {data}\ntasks:\n  {tasks}\n")
    write_class_folders(tmp_path / "classes")
    write_decathlon(tmp_path / "decathlon")
    write_nyuv2(tmp_path / "nyuv2")
    write_coco(tmp_path / "coco")
    write_shards(tmp_path / "shards")
    data = "{source: webdataset, root: shards, shards: '{split}-*.tar', size: [32, 32]}"
    kind = "{type: classification, target: cls}"
    (tmp_path / "shards.yaml").write_text(f"name: x\ndata: {data}\ntasks: {{kind: {kind}}}\n")
    rows = [
        f"{split}/rgb/1.png,{split},{word}" for split, word in (("train", "a"), ("val", "b"), ("test", "a"))
    ]
    (tmp_path / "table.csv").write_text("\n".join(["path,split,kind", *rows]))
    data = "{source: csv, root: data, file: ../table.csv, split: split, size: [32, 32]}"
    kind = "{type: classification, classes: [a, b]}"
    (tmp_path / "table.yaml").write_text(f"name: x\ndata: {data}\ntasks: {{kind: {kind}}}\n")
    data = "{source: imagefolder, root: classes, size: [32, 32]}"
    (tmp_path / "classes.yaml").write_text(f"name: x\ndata: {data}\ntasks: {{k: {{type: classification}}}}\n")
    for split in ("train", "val", "test"):
        for kind, shape in (("rgb", (32, 32, 3)), ("seg", (32, 32))):
            (tmp_path / "data" / split / kind).mkdir(parents=True)
            Image.fromarray(np.ones(shape, np.uint8)).save(tmp_path / "data" / split / kind / "1.png")
    heavy = "{'torch', 'timm', 'albumentations', 'torchmetrics', 'lightning_fabric', 'matplotlib'}"
    program = (
        "import atexit, sys\n"
        f"atexit.register(lambda: print('heavy:', sorted({heavy} & set(sys.modules))))\n"
        f"from perceptkit.cli import main\n{code}\n"
    )
    path = {"PYTHONPATH": str(REPOSITORY), "PERCEPTKIT_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, env=path
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("heavy: []\n")


def paper_rows() -> list[tuple[str, str, str]]:
    """(paper, file, test) of every row of PAPERS.md."""
    lines = (REPOSITORY / "PAPERS.md").read_text(encoding="utf-8").splitlines()
    rows = [re.split(r"\s*\|\s*", line.strip("| ")) for line in lines if line.startswith("|")]
    return [(row[0], row[1].strip("`"), row[2].strip("`")) for row in rows[2:]]


def test_every_policy_has_its_paper_and_its_test():
    policies = {
        str(path.relative_to(REPOSITORY))
        for path in (REPOSITORY / "perceptkit/policies").glob("*.py")
        if path.name != "__init__.py"
    }
    rows = {file: test for _, file, test in paper_rows()}
    assert policies <= set(rows)
    for file in policies:
        assert (REPOSITORY / rows[file]).is_file()


@pytest.mark.parametrize(("paper", "file", "test"), paper_rows(), ids=lambda text: text[:30])
def test_files_of_a_paper_exist(paper, file, test):
    assert (REPOSITORY / file).is_file() and (REPOSITORY / test).is_file()


@pytest.mark.parametrize("path", sorted((REPOSITORY / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_recipes_load(path):
    assert load_recipe(path).spec.stages


@pytest.mark.parametrize("path", sorted((REPOSITORY / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_recipes_of_the_reference_code_say_which_of_its_quirks_are_on(path):
    text = path.read_text(encoding="utf-8")
    header = " ".join(line.lstrip("# ") for line in text.splitlines() if line.startswith("#"))
    on, _, off = header.partition("Switched on:")[2].partition("Switched off:")
    recipe = load_recipe(path).spec
    is_of_the_code = recipe.sharing.method == "adashare" and recipe.sharing.formulation == "reference_code"
    assert bool(on) is bool(off) is is_of_the_code
    if is_of_the_code:
        search = next(stage for stage in recipe.stages if stage.name == "search")
        assert "late blocks are pulled together" in on and "raw logits" in on and "towards skipping" in on
        assert ("logits decay" in on) is (search.policy_weight_decay > 0)
        assert ("plans are drawn" in on) is (search.samples > 0)
        assert ("soft samples" in on) is (search.gumbel == "soft")
        assert ("tau without a floor" in off) is (search.tau[1] > 0)


@pytest.mark.parametrize("path", sorted((REPOSITORY / "tasks").glob("*.yaml")), ids=lambda path: path.stem)
def test_tasks_files_load(path, tmp_path):
    overrides = []
    written = yaml.safe_load(path.read_text(encoding="utf-8"))
    data = written.get("data") or {"source": "scenes"}  # sources that ship are rendered
    if data["source"] == "folder":
        for split in ("train", "val", "test"):
            picture = tmp_path / data["image"].format(split=split, id="1")
            picture.parent.mkdir(parents=True)
            picture.touch()
        overrides = [f"data.root={tmp_path}"]
    if data["source"] == "decathlon":
        write_decathlon(tmp_path, data["domain"])
        overrides = [f"data.root={tmp_path}"]
    if data["source"] in WRITERS:
        WRITERS[data["source"]](tmp_path)
        overrides = [f"data.root={tmp_path}"]
    assert load_tasks(path, overrides).spec.tasks


def test_nobody_imports_with_a_star_or_prints_in_a_library():
    for path in (REPOSITORY / "perceptkit").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"^from \S+ import \*", text, flags=re.M), path
        may_print = path.name in ("cli.py", "progress.py")
        assert may_print or not re.search(r"^\s*print\(", text, flags=re.M), path


def test_every_paper_that_the_code_cites_has_a_row():
    papers = (REPOSITORY / "PAPERS.md").read_text(encoding="utf-8")
    cited = {
        number: file.name
        for file in (REPOSITORY / "perceptkit").rglob("*.py")
        for number in re.findall(r"arxiv\.org/abs/(\d{4}\.\d{4,5})", file.read_text(encoding="utf-8"))
    }
    assert len(cited) > 5
    assert {number: file for number, file in cited.items() if number not in papers} == {}
