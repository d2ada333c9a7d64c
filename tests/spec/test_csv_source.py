"""`source: csv`: files as people have them, what is wrong with them by file and line, and what `check` says."""

from pathlib import Path

import pytest

from perceptkit.errors import DataError
from perceptkit.spec.check_files import check_files
from perceptkit.spec.csv_source import csv_labels, csv_pictures
from perceptkit.spec.csv_table import read_csv_table
from perceptkit.spec.load import load_tasks
from perceptkit.spec.problems import SpecProblems
from tests.listed_files import save

ONE = "source: csv, file: all.csv, split: split"
KIND = "kind: {type: classification}"
TAGS = "tags: {type: classification, multi_label: true}"
GOOD = """path,split,kind,tags
a/1.png,train,oak,tree|big
a/2.png,train,elm,
a/3.png,train,,?
b/4.png,val,oak,tree
b/5.png,test,elm,big
b/6.png,,elm,big
"""


@pytest.fixture
def folder(tmp_path):
    for i, name in enumerate(("a/1", "a/2", "a/3", "b/4", "b/5", "b/6")):
        save(tmp_path / f"data/{name}.png", 10 * i)
    (tmp_path / "data/all.csv").write_text(GOOD)
    return tmp_path


def load(folder: Path, data: str = ONE, tasks: str = KIND):
    """The tasks file whose root is the folder `data` beside it."""
    (folder / "t.yaml").write_text(
        f"name: t\ndata: {{{data}, root: data, size: [32, 32]}}\ntasks: {{{tasks}}}\n"
    )
    return load_tasks(folder / "t.yaml")


def problems(folder: Path, data: str = ONE, tasks: str = KIND) -> list[str]:
    with pytest.raises(SpecProblems) as caught:
        load(folder, data, tasks)
    return [f"{p.key} {p.message}".replace(f"{folder}/", "") for p in caught.value.problems]


def labels(folder: Path, data: str = ONE, tasks: str = KIND) -> dict[str, list]:
    """Of every task, the words of each picture of train."""
    spec = load(folder, data, tasks).spec
    pictures = csv_pictures(spec.data, "train")
    return {name: [csv_labels(name, task, p) for p in pictures] for name, task in spec.tasks.items()}


def test_a_column_for_each_task(folder):
    assert labels(folder, tasks=f"{KIND}, {TAGS}") == {
        "kind": [("oak",), ("elm",), None],
        "tags": [("tree", "big"), (), None],  # nothing is true, and not labelled
    }
    spec = load(folder, tasks="tree: {type: classification, target: kind}").spec
    assert [p.id for p in csv_pictures(spec.data, "val")] == ["b/4.png"]
    assert csv_pictures(spec.data, "test")[0].path == folder / "data/b/5.png"
    limited = load(folder, f"{ONE}, limit: 2").spec.data
    assert [p.id for p in csv_pictures(limited, "train")] == ["a/2.png", "a/3.png"]


def test_a_file_for_each_split(folder):
    (folder / "data/train.csv").write_text("file;kind\na/1.png;oak\na/2.png;elm\n")
    (folder / "data/valid.csv").write_text("file;kind\nb/4.png;oak\n")
    data = "source: csv, file: '{split}.csv', image: file, splits: {train: train, val: valid, test: valid}"
    spec = load(folder, data).spec
    assert [p.id for p in csv_pictures(spec.data, "train")] == ["a/1.png", "a/2.png"]
    assert csv_pictures(spec.data, "val") == csv_pictures(spec.data, "test")
    (folder / "data/valid.csv").write_text("file;kind\nb/4.png;oak\na/1.png;oak\n")
    first = problems(folder, data)[0]
    assert first == (
        "data.file data/valid.csv: line 3 lists 'a/1.png' for val, and data/train.csv: line 2 for train"
    )


@pytest.mark.parametrize(
    "text",
    [
        GOOD.replace(",", ";"),
        GOOD.replace(",", "\t"),
        "\ufeff" + GOOD,
        GOOD.replace("\n", "\r\n"),
        GOOD.replace("oak", '"oak"').replace("path,", '"path",'),
        GOOD.replace(",", " , "),
        "\n" + GOOD.replace("\n", "\n\n"),
    ],
    ids=["semicolons", "tabs", "byte order mark", "Windows", "quotes", "blanks", "blank lines"],
)
def test_forms_of_a_csv(folder, text):
    (folder / "data/all.csv").write_bytes(text.encode())
    assert labels(folder) == {"kind": [("oak",), ("elm",), None]}


def test_quoted_cells_hold_anything(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('path,kind\n"a, b.png","two\nlines ""quoted"""\nc.png,x\n')
    table = read_csv_table(path, "path")
    assert [(row.line, row.cells) for row in table.rows] == [
        (2, ("a, b.png", 'two\nlines "quoted"')),
        (4, ("c.png", "x")),
    ]


def test_a_column_for_each_class(folder):
    (folder / "data/all.csv").write_text(
        "path,split,cat,dog\na/1.png,train,1,0\na/2.png,train,0,0\na/3.png,train,,\nb/4.png,val,1,1\nb/5.png,test,0,1\n"
    )
    tasks = "pets: {type: classification, multi_label: true, classes: [dog, cat]}"
    assert labels(folder, tasks=tasks) == {"pets": [("cat",), (), None]}
    text = (folder / "data/all.csv").read_text()
    (folder / "data/all.csv").write_text(
        text.replace("2.png,train,0", "2.png,train,").replace("1,1", "1,yes")
    )
    report = check_files(load(folder, tasks=tasks))
    assert [p.replace(f"{folder}/", "") for p in report.problems] == [
        "pets: data/all.csv: line 3 holds nothing in the column 'cat'; expected 0 or 1, or nothing in all",
        "pets: data/all.csv: line 5 holds 'yes' in the column 'dog'; expected 0 or 1, or nothing in all",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "data/all.csv is empty; its first row names the columns"),
        ("file,split,kind\n", "has no column 'path'; it has file, split, kind; data.image says which holds the paths"),
        ("paths,split\n", "has no column 'path'; did you mean 'paths'?; data.image says which holds the paths"),
        ("path,split,split\n", "data/all.csv: line 1 has two columns 'split'"),
        ("path,kind\na.png,x\n", "data/all.csv has no column 'split'; it has path, kind"),
        ("path,split\na.png\n", "data/all.csv: line 2 has 1 cells; the first row names 2 columns"),
        ("path,split\na.png,train,x\n", "line 2 has 3 cells; the first row names 2 columns"),
        ("path,split\n,train\n", "line 2 has no path of a picture"),
        ("path,split\na.png,train\n\na.png,val\n", "line 4 lists 'a.png' again; line 2 does"),
        ("path,split\n../a.png,train\n", "line 2 names ../a.png, which is not below data.root"),
        ("path,split\n/a.png,train\n", "line 2 names /a.png, which is absolute; paths start from data.root"),
        ("path,split\nC:\\a.png,train\n", "line 2 names C:\\a.png, which is absolute"),
        ("path,split\na\\b.png,train\n", "line 2 names a\\b.png; part folders by /"),
        ('path,split\n"a.png,train\nb.png,val\n', "line 2 is not CSV (unexpected end of data); is a quote not closed?"),
        ('path,split\n"a"b,train\n', "line 2 is not CSV"),
        ("path,split\na.png,trian\n", "line 2 has the split 'trian'; expected train, val, test; did you mean 'train'?"),
        ("path,split\na.png,5\n", "line 2 has the split '5'; expected train, val, test; leave it empty to use"),
        ("path,split\na.png,val\n", "no pictures for train: data/all.csv has no 'train' in the column 'split'"),
    ],
)  # fmt: skip
def test_damaged_files(folder, text, message):
    (folder / "data/all.csv").write_text(text)
    first = problems(folder)[0]
    assert first.startswith("data.file ") and message in first


def test_text_in_another_encoding(folder):
    (folder / "data/all.csv").write_bytes(GOOD.replace("elm", "Bäume").encode("latin1"))
    assert problems(folder) == ["data.file data/all.csv is not UTF-8 text (line 3); save it as UTF-8"]


@pytest.mark.parametrize(
    ("data", "tasks", "message"),
    [
        ("source: csv, file: all.csv", KIND, "data.file must hold {split}, or data.split names the column"),
        ("source: csv, file: '{split}.csv', split: split", KIND, "data.split data.file has {split}, a file for"),
        ("source: csv, file: '{id}.csv', split: split", KIND, "data.file one CSV lists the pictures of a whole split"),
        ("source: csv, file: '{slit}.csv', split: split", KIND, "data.file unknown placeholder {slit}; did you mean"),
        ("source: csv, file: al.csv, split: split", KIND, "no file data/al.csv; did you mean 'all.csv'?"),
        (f"{ONE}, splits: {{train: train}}", KIND, "data.splits.val missing key: the word that holds the val split"),
        (f"{ONE}, splits: {{train: a, val: a, test: b}}", KIND, "data.splits.val the same word as train"),
        (ONE, "knd: {type: classification}", "tasks.knd.target data/all.csv has no column 'knd'; did you mean 'kind'?"),
        (ONE, "k: {type: classification, target: knd}", "tasks.k.target data/all.csv has no column 'knd'"),
        (ONE, "d: {type: depth}", "tasks.d.type a CSV has labels of classification and embedding, not of depth"),
        (ONE, "kind: {type: classification, classes: [oak]}", "tasks.kind.classes one class leaves nothing"),
        (ONE, "kind: {type: classification, classes: no.txt}", "tasks.kind.classes no such file of class names"),
        (f"{ONE}, train_on: [train, val], splits: {{train: train, val: val, test: val}}", KIND, "val is the word of"),
    ],
)  # fmt: skip
def test_keys(folder, data, tasks, message):
    assert any(message in found for found in problems(folder, data, tasks)), problems(folder, data, tasks)


def test_nothing_else_raises_where_keys_are_invalid(folder):
    found = problems(folder, "source: csv, file: 3, split: [], splits: 3, image: {}, limit: x, train_on: []")
    assert len(found) >= 6


def test_check(folder):
    text = GOOD.replace("val,oak", "val,ook").replace("b/5", "b/7")
    (folder / "data/all.csv").write_text(text)
    (folder / "data/a/2.png").write_bytes(b"no picture")
    report = check_files(load(folder, tasks=f"{KIND}, {TAGS}"))
    unreadable, label, missing = [found.replace(f"{folder}/", "") for found in report.problems]
    assert label == (
        "kind: data/all.csv: line 5 has the label 'ook', which is not one of the classes; did you mean 'oak'?"
    )
    assert unreadable.startswith("data/all.csv: line 3: a/2.png cannot be read: ")
    assert missing == "data/all.csv: line 6: b/7.png is missing"
    assert report.splits["train"].labels == {"kind": 2, "tags": 2}
    assert [found for found in report.warnings if found.startswith("tags")] == [
        "tags: val has no picture of the class big",
        "tags: test has no picture of the class tree",
    ]


def test_a_split_without_labels(folder):
    (folder / "data/all.csv").write_text(GOOD.replace("val,oak", "val,"))
    assert any("no picture of val has a label" in w for w in check_files(load(folder)).warnings)
    (folder / "data/all.csv").write_text(GOOD.replace("oak", "").replace("elm", ""))
    (found,) = problems(folder)
    assert "column 'kind' holds no labels of train to take the classes from" in found
    with pytest.raises(DataError, match="cannot be read"):
        read_csv_table(folder / "data/none.csv", "path")
