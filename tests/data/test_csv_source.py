"""Pictures that a CSV lists: every target by hand, and a run from the file to the first step."""

import numpy as np
import pytest

from perceptkit.cli import main
from perceptkit.data.sources import open_split, open_train
from perceptkit.errors import DataError
from perceptkit.spec.load import load_tasks
from perceptkit.spec.problems import SpecProblems
from perceptkit.spec.stage_steps import count_pictures
from perceptkit.tasks.table import build_tasks
from tests.listed_files import save

ROWS = """image,part,kind,tags
1.png,train,oak,big|old
2.png,train,elm,
3.png,train,,?
4.png,train,elm,old
5.png,val,oak,old
6.png,test,elm,big
"""
DATA = "{source: csv, root: data, file: all.csv, image: image, split: part, size: [32, 48]}"
TASKS = "{kind: {type: classification}, tags: {type: classification, multi_label: true}}"


@pytest.fixture
def folder(tmp_path):
    for i in range(1, 7):
        save(tmp_path / f"data/{i}.png", 10 * i)
    (tmp_path / "data/all.csv").write_text(ROWS)
    (tmp_path / "t.yaml").write_text(f"name: t\ndata: {DATA}\ntasks: {TASKS}\n")
    return tmp_path


def split(folder, name):
    spec = load_tasks(folder / "t.yaml").spec
    return open_split(spec, build_tasks(spec), name)


def test_targets(folder):
    source = split(folder, "train")
    assert list(source.ids) == ["1.png", "2.png", "3.png", "4.png"]
    samples = [source.load(i) for i in range(4)]
    assert [int(sample.image.mean()) for sample in samples] == [10, 20, 30, 40]
    assert samples[0].image.shape == (32, 48, 3)
    # classes by name: elm, oak; big, old
    assert [int(sample.targets["kind"]) for sample in samples] == [1, 0, -1, 0]
    assert [sample.targets["tags"].tolist() for sample in samples] == [[1, 1], [0, 0], [-1, -1], [0, 1]]
    assert samples[0].targets["tags"].dtype == np.float32 and samples[0].targets["kind"].dtype == np.int64


def test_splits_and_counts(folder):
    spec = load_tasks(folder / "t.yaml", ["data.train_on=[train, val]"]).spec
    assert len(open_train(spec, build_tasks(spec))) == 5
    assert [count_pictures(spec, name) for name in ("train", "val", "test")] == [4, 1, 1]
    spec = load_tasks(folder / "t.yaml", ["tasks.kind.classes=[oak, elm]", "data.limit=1"]).spec
    source = open_split(spec, build_tasks(spec), "train")
    assert len(source) == 1 and int(source.load(0).targets["kind"]) == 0


def test_files_that_changed_since_the_check(folder):
    spec = load_tasks(folder / "t.yaml").spec
    tasks = build_tasks(spec)
    (folder / "data/5.png").unlink()
    with pytest.raises(DataError, match=r"all.csv: line 6 lists .*5.png: no such file"):
        open_split(spec, tasks, "val").load(0)
    (folder / "data/all.csv").write_text(ROWS.replace("val,oak", "val,ook"))
    with pytest.raises(DataError, match=r"all.csv: line 6: 5.png has the label 'ook', .*did you mean 'oak'"):
        open_split(spec, tasks, "val")
    (folder / "data/all.csv").write_text("image,part,kind,tags\n")
    with pytest.raises(DataError, match=r"no pictures for val in .*all.csv"):
        open_split(spec, tasks, "val")


@pytest.mark.slow
def test_dry_run(folder, capsys):
    small = "backbone={name: test_resnet, weights: none} loader.batch=2 loader.workers=0".split(" loader")
    changes = [small[0], *(f"loader{rest}" for rest in small[1:])]
    command = ["train", str(folder / "t.yaml"), "--recipe", "hard", "--dry-run", "--set", *changes]
    assert main(command) == 0, capsys.readouterr().err


def test_ids_of_an_embedding_and_labels_without_pictures(folder):
    text = f"name: t\ndata: {DATA}\ntasks: {{who: {{type: embedding, dims: 4, target: kind}}}}\n"
    (folder / "t.yaml").write_text(text)
    source = split(folder, "train")
    assert [int(source.load(i).targets["who"]) for i in range(4)] == [1, 0, -1, 0]
    assert [source.label(i, "who") for i in range(4)] == [1, 0, -1, 0]
    unseen = split(folder, "val")
    assert unseen.label(0, "who") == 1


def test_one_id_leaves_nothing_to_tell_apart(folder):
    text = f"name: t\ndata: {DATA}\ntasks: {{who: {{type: embedding, dims: 4, target: kind}}}}\n"
    (folder / "t.yaml").write_text(text)
    (folder / "data/all.csv").write_text(ROWS.replace("elm", "oak"))
    with pytest.raises(SpecProblems, match="one id leaves nothing to tell apart"):
        load_tasks(folder / "t.yaml")
