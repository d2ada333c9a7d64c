"""The page: one file that needs nothing else, with every section there is something for."""

import base64
import io
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from perceptkit import cli
from perceptkit.errors import SpecError
from perceptkit.report.page import render, write_report
from perceptkit.report.pictures import MAX_SIDE, inline_png, inline_thumbnail
from perceptkit.report.run_folder import Run, read_run
from tests.report.fake_run import TASKS, make_run

SECTIONS = ["Results", "Size and compute", "Who keeps which block", "Predictions", "Training", "Run it again"]
SEARCHED = [*SECTIONS[:3], "How tasks relate", *SECTIONS[3:]]
"""Of a run with a search, its plots and all."""
LOADS = {"src", "srcset", "href", "data", "poster", "action", "background"}


class Page(HTMLParser):
    """What a browser would make of the page, as far as the tests ask."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, Mapping[str, str | None]]] = []
        self.words: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "link", "img", "source", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip():
            self.words.append((self.open[-1], " ".join(data.split())))

    def all(self, tag: str) -> list[str]:
        """The text directly in each tag of a name."""
        return [words for name, words in self.words if name == tag]

    @property
    def text(self) -> str:
        return " ".join(words for tag, words in self.words if tag != "style")

    @property
    def pictures(self) -> dict[str, list[str]]:
        """Sources by alternative text."""
        found: dict[str, list[str]] = {}
        for tag, attributes in self.tags:
            if tag == "img":
                found.setdefault(attributes["alt"], []).append(attributes["src"])
        return found


@pytest.fixture(scope="module")
def page(finished: Run, plots: dict[str, dict[str, Path]]) -> Page:
    """The page of a finished run, with its plots."""
    inlined = {name: {theme: inline_png(path) for theme, path in by.items()} for name, by in plots.items()}
    return Page(render(finished, [], inlined))


def picture_of(uri: str) -> Image.Image:
    head, _, body = uri.partition(",")
    assert head == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(body, validate=True)))


# one self-contained file


def test_nothing_is_loaded_from_elsewhere(page):
    loaded = [(tag, attributes[key]) for tag, attributes in page.tags for key in LOADS & attributes.keys()]
    assert len(loaded) > 60
    assert all(source.startswith("data:") for _, source in loaded)
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "iframe", "object", "embed", "video", "base"}
    assert not any(key.startswith("on") for _, attributes in page.tags for key in attributes)
    (css,) = page.all("style")
    assert not re.search(r"url\(|@import|//", css)


def test_every_tag_is_closed(page):
    assert page.open == []


def test_pictures_are_whole(page, finished):
    sources = [source for found in page.pictures.values() for source in found]
    for source in sources:
        with picture_of(source) as picture:
            picture.load()
    assert sum(len(found) for found in page.pictures.values()) == 7 + 4 * 13 - 1
    with (
        picture_of(page.pictures["depth prediction"][1]) as shown,
        Image.open(finished.examples[1].tasks["depth"].prediction) as drawn,
    ):
        assert shown.tobytes() == drawn.convert("RGB").tobytes()


def test_plots_follow_the_readers_theme(page, plots):
    dark = [
        a["srcset"]
        for tag, a in page.tags
        if tag == "source" and a["media"] == "(prefers-color-scheme: dark)"
    ]
    light = [a["src"] for tag, a in page.tags if tag == "img" and a.get("class") == "plot"]
    assert dark == [inline_png(paths["dark"]) for paths in plots.values()]
    assert light == [inline_png(paths["light"]) for paths in plots.values()]


def test_a_large_picture_is_made_no_larger_than_it_is_shown(tmp_path):
    Image.new("RGB", (1000, 500), "red").save(tmp_path / "large.png")
    with picture_of(inline_thumbnail(tmp_path / "large.png")) as shown:
        assert shown.size == (MAX_SIDE, MAX_SIDE // 2) and shown.getpixel((9, 9)) == (255, 0, 0)


@pytest.mark.parametrize("damage", [b"", b"no picture", None])
def test_a_picture_that_is_not_there_is_empty(tmp_path, damage):
    if damage is not None:
        (tmp_path / "picture.png").write_bytes(damage)
    assert inline_thumbnail(tmp_path / "picture.png") == ""


# its sections


def test_every_section_is_there(page):
    assert page.all("h1") == ["finished"] and page.all("h2") == SEARCHED
    assert page.all("h3") == [
        "Keep probability after epoch 8 of the search", "The search, epoch by epoch", "How decided the policy is",
        "Training loss", "Validation",
    ]  # fmt: skip


def test_it_opens_with_what_matters_most(page):
    assert "AdaShare resnet18 64x64 px seed 0 test split" in page.text
    assert page.all("dd") == ["6/6", "2.56", "402.1", "8.0"]
    assert "0.82x hard-shared, 0.14x single-task" in page.text  # parameters
    assert "1.08x hard-shared, 0.70x single-task" in page.text  # MACs
    assert "warmup 84 s, search 2.7 min, retrain 3.9 min" in page.text


def test_the_plan_in_words(page):
    # 7 + 6 + 6 + 6 + 4 + 5 of 6 x 8; layer4.0 is the room's own
    assert "8 blocks: 7 shared, 1 specific. On average a task keeps 71% of them." in page.text


def test_labels_stand_above_predictions_of_every_task(page):
    for task in TASKS:
        assert len(page.pictures[f"{task} prediction"]) == 4
        assert len(page.pictures[f"{task} label"]) == (3 if task == "keypoints" else 4)
    assert page.all("div").count("no label") == 1
    order = [
        a["alt"] for tag, a in page.tags if tag == "img" and a["alt"].split()[-1] in ("label", "prediction")
    ]
    assert order[:12] == [f"{task} label" for task in TASKS] + [f"{task} prediction" for task in TASKS]
    assert [f"000{i}" for i in range(4)] == [words for words in page.all("div") if words.startswith("000")]


def test_speed_waiting_and_memory(page):
    assert re.search(
        r"1\d\d images/s, 3.1% of the time waiting for data \(medians\), 1,184 MiB peak memory", page.text
    )


def test_settings_versions_and_command(page):
    settings, environment = page.all("code")[-2:]
    assert "backbone: name: resnet18" in settings and '"torch": "2.14.1"' in environment
    assert page.all("code")[1] == "perceptkit train scenes --recipe quickstart"


@pytest.mark.parametrize(
    "argv, shown",
    [
        (["/venv/bin/perceptkit", "train", "a b"], "perceptkit train &#39;a b&#39;"),
        (["/src/perceptkit/cli.py", "train"], "perceptkit train"),
        (["tools/demo.py", "--out", "x"], "python tools/demo.py --out x"),
        (["ipython"], "ipython"),
    ],
)
def test_the_command_as_one_would_type_it(finished, argv, shown):
    assert f"<pre><code>{shown}</code></pre>" in render(
        replace(finished, environment={"command": argv}), [], {}
    )


def test_it_says_when_it_was_written(page):
    (written,) = page.all("footer")
    when = datetime.strptime(written, "Written by perceptkit, %Y-%m-%d %H:%M.")
    assert abs((datetime.now() - when).total_seconds()) < 3600


# what is not so usual


def test_names_are_escaped(run_of):
    evil = '<script>alert("x")</script>'
    page = Page(render(run_of("run", tasks=("seg", "room"), rename={"seg": evil}), [], {}))
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.all("th").count(evil) == 3  # results, cost of one task only, predictions
    assert f"{evil} label" in page.pictures


def test_baselines_stand_beside_the_run(run_of):
    runs = [run_of("mine"), run_of("dense", method="hard", factor=0.9), run_of("nets", method="single")]
    page = Page(render(runs[0], runs[1:], {}))
    titles = page.all("th")
    assert {"adashare", "hard", "single", "constant predictor", "delta-MTL"} <= set(titles)
    assert page.all("dd")[0] == "0.0" and "delta-MTL against nets" in page.text
    assert "the best run of each line is bold" in page.text
    assert any(tag == "td" and attributes.get("class") == "best" for tag, attributes in page.tags)


def test_what_is_no_better_than_the_constant_predictor_is_marked(run_of):
    page = Page(render(run_of("run", factor=0.2), [], {}))
    assert any(attributes.get("class") == "poor" for _, attributes in page.tags)
    assert page.all("dd")[0] == "1/6" and "!" in page.all("abbr")


@pytest.mark.parametrize(
    "method, words", [("hard", "hard sharing"), ("single", "Each task has a network of its own")]
)
def test_a_baseline_without_search(run_of, method, words):
    run = run_of("run", method=method)
    page = Page(render(run, [], {}))
    assert page.all("h2") == SECTIONS and words in page.text
    assert not [title for title in page.all("h3") if "search" in title.lower()]


def test_an_unfinished_run_says_where_it_stands(run_of):
    page = Page(render(run_of("run", upto="search"), [], {}))
    assert "This run is not finished. Last seen in stage search, epoch 8 of 8, step 840." in page.text
    assert "results.json is not there yet: no test results" in page.all("li")
    assert page.all("h2") == ["Training", "Run it again"]


def test_a_run_that_has_not_logged_a_step(run_of):
    path = run_of("run", upto="warmup").path
    (path / "metrics.jsonl").unlink()
    page = Page(render(read_run(path), [], {}))
    assert "It has not logged a step yet." in page.text


def test_damaged_files_are_named_on_the_page(run_of):
    path = run_of("run").path
    (path / "results.json").write_text("[")
    (path / "predictions/0_image.png").write_bytes(b"no picture")
    page = Page(render(read_run(path), [], {}))
    assert "Parts of this run are missing or damaged." in page.text and "not finished" not in page.text
    (line,) = page.all("li")
    assert line.startswith("results.json cannot be read (JSONDecodeError")
    assert page.all("h2") == SECTIONS[1:]
    assert page.all("div").count("no picture") == 1


# the verb


def test_report_prints_the_path_of_the_page(tmp_path, capsys):
    run = make_run(tmp_path / "run", method="hard", tasks=("seg", "room"), upto="retrain")
    assert cli.main(["report", str(run)]) == 0
    written = Path(capsys.readouterr().out.strip())
    assert written == run / "report.html"
    page = Page(written.read_text(encoding="utf-8"))
    assert page.all("h2") == SECTIONS
    assert {path.stem for path in (run / "plots").iterdir() if "_dark" not in path.stem} == {
        "keep_table", "loss", "validation",
    }  # fmt: skip
    assert [p for p in run.rglob(".*")] == []  # nothing half-written


def test_report_as_markdown(tmp_path, capsys):
    run, nets = (
        make_run(tmp_path / "run", tasks=("room",)),
        make_run(tmp_path / "nets", "single", tasks=("room",)),
    )
    assert cli.main(["report", str(run), "--markdown", "--baseline", str(nets)]) == 0
    printed = capsys.readouterr().out
    assert "| task, metric" in printed and "constant predictor" in printed and "delta-MTL" in printed
    assert not (run / "report.html").exists()


@pytest.mark.parametrize("which", ["run", "baseline"])
def test_a_folder_that_is_no_run_is_an_error_before_anything_is_written(tmp_path, capsys, which):
    run, other = make_run(tmp_path / "run", tasks=("room",)), tmp_path / "other"
    other.mkdir()
    with pytest.raises(SpecError, match="other is not a run folder"):
        write_report(*((other,) if which == "run" else (run, [other])))
    typed = ["report", str(other)] if which == "run" else ["report", str(run), "--baseline", str(other)]
    assert cli.main(typed) == 2
    printed = capsys.readouterr().err
    assert "other is not a run folder" in printed and "Traceback" not in printed
    assert not (run / "report.html").exists() and not (run / "plots").exists() and list(other.iterdir()) == []


@pytest.mark.slow
def test_the_report_never_loads_torch(tmp_path):
    run = make_run(tmp_path / "run", tasks=("room",), upto="warmup")
    code = (
        "import sys; from pathlib import Path; from perceptkit.report.page import write_report;"
        "write_report(Path(sys.argv[1])); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(run)]).returncode == 0
    assert (run / "report.html").is_file()
