"""What the page says of an adapted run."""

import json
from dataclasses import replace

import pytest

from perceptkit.report.adaptation_file import read_adaptation
from perceptkit.report.adaptation_section import essentials, new_table
from perceptkit.report.page import write_report
from perceptkit.report.run_folder import read_run
from tests.report.fake_run import BLOCKS, _scene, make_run
from tests.report.test_page import Page

HEADING = "What was adapted"
OLD = {
    "before": {"seg": {"miou": 0.5}},
    "after": {"seg": {"miou": 0.45}},
    "tasks": {"seg": {"primary": "miou", "info": {"miou": {"higher_is_better": True, "unit": ""}}}},
}
STATIC = {
    "method": "taps",
    "bits": {"trunk": 8_000_000, "router": 0, "rest": 4_000_000, "base": 16_000_000},
    "layers_tuned": {block: b / 8 for b, block in enumerate(BLOCKS)},
    "old_domain": OLD,
}
SPOTTUNE = STATIC | {
    "method": "spottune",
    "layers_tuned": {block: 0.0 for block in BLOCKS[2:]},
    "copies": {
        "blocks": list(BLOCKS[:2]),
        "seen": {"keep_rate": [1.0, 0.25]},
        "ablations": {"always_base": {"seg": {"miou": 0.3}}, "always_tuned": {"seg": {"miou": 0.4}}},
        "static": False,
    },
    "test": {
        "num_images": 4,
        "rate": [1.0, 0.5],
        "policies": [{"tuned": [1, 0], "pictures": 2}, {"tuned": [1, 1], "pictures": 2}],
        "clusters": [
            {"tuned": [1, 0], "rate": [1.0, 0.0], "policies": 1, "pictures": 2, "examples": [0]},
            {"tuned": [1, 1], "rate": [1.0, 1.0], "policies": 1, "pictures": 2, "examples": [1]},
        ],
        "fewest": [0],
        "most": [1],
        "examples": {"0": {"id": "<b>x</b>", "policy": 0}, "1": {"id": "y", "policy": 1}},
    },
}


def page_of(path, adaptation):
    make_run(path, "hard", tasks=("seg",))
    (path / "adaptation.json").write_text(json.dumps(adaptation))
    (path / "adaptation").mkdir()
    _scene(0).save(path / "adaptation/0.png")
    return Page(write_report(path).read_text())


def test_what_a_tolerance_made_static_is_told_with_its_cost(tmp_path):
    folded = {
        "blocks": {BLOCKS[0]: {"kept": True, "rate": 0.98}},
        "before": {"seg": {"miou": 0.5}},
        "after": {"seg": {"miou": 0.49}},
    }
    page = page_of(tmp_path / "run", SPOTTUNE | {"copies": SPOTTUNE["copies"] | {"folded": folded}})
    assert (
        f"{BLOCKS[0]} (tuned, 2.0% otherwise). On the validation split: seg miou 0.500 to 0.490." in page.text
    )


def test_a_static_method(tmp_path):
    page = page_of(tmp_path / "run", STATIC)
    assert HEADING in page.all("h2") and page.open == []
    assert "The domain stores 1.50 MB, 0.75x the base's trunk." in page.text
    assert "answers as before" in page.text and "\N{MINUS SIGN}0" in page.text
    assert "always tuned" not in page.text and "Images that chose differently" not in page.text
    assert (tmp_path / "run/plots/tuned_blocks_dark.png").is_file()


@pytest.mark.parametrize(
    ("count", "fixed", "said"),
    [
        (
            64,
            [],
            "all images agree on 1 of 2, judged on 64 images; of others up to 3/64 (4.69%) may choose otherwise.",
        ),
        (64, [], "adaptation.fold_tolerance, 1% for example, fixes blocks all the same"),
        (
            3000,
            BLOCKS[:1],
            "1 of 2 blocks were fixed to one copy, judged on 3,000 images; of others up to 3/3,000 (0.10%)",
        ),
        (2, BLOCKS[:1], "up to 3/2 (100.00%)"),
    ],
)
def test_how_many_images_a_choice_was_judged_on(tmp_path, count, fixed, said):
    copies = SPOTTUNE["copies"] | {
        "seen": {"keep_rate": [1.0, 0.25], "num_images": count},
        "fixed": list(fixed),
    }
    path = tmp_path / "adaptation.json"
    path.write_text(json.dumps(SPOTTUNE | {"copies": copies}))
    assert said in " ".join(essentials(read_adaptation(path)))
    path.write_text(json.dumps(SPOTTUNE))
    assert "judged on" not in " ".join(essentials(read_adaptation(path)))


def test_the_base_on_the_new_domain_stands_before_the_run(tmp_path):
    make_run(tmp_path / "run", "hard", tasks=("seg", "depth"))
    before = {"val": {}, "test": {"seg": {"miou": 0.123}}}
    (tmp_path / "run/adaptation.json").write_text(json.dumps(STATIC | {"before": before}))
    run = read_run(tmp_path / "run")
    table = new_table(run, run.adaptation)
    assert [column.title for column in table.columns] == ["before", "this run"]
    cells = {row.label: row.cells[0].text for row in table.rows}
    assert cells["miou"] == "0.123" and cells["abs_rel"] == ""  # depth is new
    without = new_table(run, replace(run.adaptation, before=None))
    assert [column.title for column in without.columns] == ["this run"]


def test_spottune(tmp_path):
    page = page_of(tmp_path / "run", SPOTTUNE)
    assert {"always the base's", "always tuned"} <= set(page.all("th"))
    assert "Images that chose differently" in page.all("h3")
    assert page.all("div").count("no picture") == 2  # 1.png is not there
    strips = [a["aria-label"] for _, a in page.tags if a.get("class") == "strip"]
    assert strips[0] == "tuned: layer1.0"
    assert "image <b>x</b>" in page.pictures  # an attribute, not a tag


@pytest.mark.slow
def test_where_the_old_domain_was_not_measured(tmp_path):
    page = page_of(tmp_path / "run", STATIC | {"old_domain": {**OLD, "after": None, "why": "no <i>such"}})
    assert "It was not measured: no <i>such." in page.text
    page = page_of(tmp_path / "none", STATIC | {"old_domain": None})
    assert "There is no base run" in page.text


@pytest.mark.slow
@pytest.mark.parametrize("key", list(SPOTTUNE))
def test_a_missing_key_leaves_out_its_part(tmp_path, key):
    page = page_of(tmp_path / "run", {k: v for k, v in SPOTTUNE.items() if k != key})
    assert HEADING in page.all("h2")


@pytest.mark.parametrize(
    "key", ["policies", *(pytest.param(key, marks=pytest.mark.slow) for key in [*SPOTTUNE["test"], "all"])]
)
def test_a_missing_key_of_the_pictures(tmp_path, key):
    test = {k: v for k, v in SPOTTUNE["test"].items() if k != key}
    assert HEADING in page_of(tmp_path / "run", SPOTTUNE | {"test": test if key != "all" else {}}).all("h2")


def test_other_runs_have_none(finished):
    assert finished.adaptation is None and not finished.adapts
    assert read_run(finished.path).adaptation is None
