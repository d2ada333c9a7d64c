"""What the page says of a router."""

import json
import math
from dataclasses import replace

import pytest

from perceptkit.report.page import render, write_report
from perceptkit.report.routing_file import BRIEF
from perceptkit.report.routing_section import (
    difficulty_words,
    executor_words,
    latency_table,
    quality_words,
    routing_section,
    rules_table,
    static_words,
    task_cost_table,
    verdict,
)
from perceptkit.report.run_folder import read_run
from perceptkit.report.text import summary
from tests.report.fake_routing import LATENCY, make_routed_run
from tests.report.fake_run import make_run
from tests.report.test_page import SECTIONS, Page

HEADING = "What each picture skips"


@pytest.fixture(scope="module")
def routed(tmp_path_factory):
    """A router's run, to be read only."""
    return read_run(make_routed_run(tmp_path_factory.mktemp("runs") / "routed"))


@pytest.fixture(scope="module")
def page(routed):
    return Page(render(routed, [], {}))


def with_rows(run, **changed):
    """The run with other primary metrics of fine-tuned rules, by rule."""
    rows = [
        replace(row, metrics={"room": {"top1": changed[row.rule]}})
        if row.tuned and row.rule in changed
        else row
        for row in run.routing.rows
    ]
    return replace(run, routing=replace(run.routing, rows=tuple(rows)))


def cells(table, label, group):
    """The texts of one row below the group's heading."""
    labels = [row.label for row in table.rows]
    row = table.rows[labels.index(label, labels.index(group))]
    return row, [cell.text for cell in row.cells]


def test_the_section_is_there_for_routers_only(page, finished):
    assert page.all("h2") == [*SECTIONS[:3], HEADING, *SECTIONS[3:]]
    assert routing_section(finished, [finished]) is None
    assert page.open == []


def test_it_says_how_much_is_decided(page):
    assert "The router looks at an image once and decides on 15 blocks." in page.text
    assert "On the 300 images of the test split it made 78 different decisions" in page.text
    assert "Never varied, so fixed in the plan: layer1.0 (kept)." in page.text
    assert page.all("li") == ["No sign of a collapse was found."]
    assert "hard sharing BlockDrop resnet18" in page.text


def test_the_figure_on_top_is_the_mean_cost(page, routed):
    macs = routed.routing.row("learned", True).macs
    assert f"{macs / 1e6:.2f}" in page.all("dd")
    assert f"{macs / 70e6:.2f}x all blocks" in page.text


def test_the_plan_in_words(page):
    assert (
        "15 blocks. On average a task keeps at most 100% of them: a router decides on 14, image by image."
        in page.text
    )


def test_the_table_of_rules(routed):
    table = rules_table(routed, routed.routing)
    assert [c.title for c in table.columns] == [
        "usage",
        "blocks",
        "MACs",
        "\N{PLUS-MINUS SIGN}",
        "ratio to",
        "room",
    ]
    assert len(table.rows) == 2 + 13
    rival, texts = cells(table, "most frequent policy", "fine-tuned")
    assert (rival.note, rival.kind) == ("honest rival", "primary") and texts[3] == "0.00"
    assert cells(table, "most frequent policy", "as they are")[0].note == ""
    learned, texts = cells(table, "learned", "fine-tuned")
    row = routed.routing.row("learned", True)
    assert texts[2] == f"{row.macs / 1e6:.2f}" and texts[3] == f"{row.macs_std / 1e6:.2f}"
    assert texts[-1] == f"{0.813 * 0.916:.3f}" and learned.cells[-1].mark == "best"
    assert cells(table, "all blocks", "fine-tuned")[0].cells[-1].mark == ""  # it costs more


@pytest.mark.parametrize(
    "learned, rival, words",
    [
        (0.9, 0.8, "the router is better in the task, at 1.06x its MACs."),
        (0.8, 0.9, "the router is better in no task, at 1.06x its MACs."),
        (0.9, 0.9, "the router is better in no task and equal to it in 1, at 1.06x its MACs."),
        (float("nan"), 0.9, ""),
    ],
)
def test_the_honest_rival_in_a_sentence(routed, learned, rival, words):
    run = with_rows(routed, learned=learned, most_frequent=rival)
    assert verdict(run, run.routing).endswith(words) and bool(verdict(run, run.routing)) is bool(words)


def test_lower_is_better_where_it_is(tmp_path):
    run = read_run(make_routed_run(tmp_path / "run", tasks=("seg", "depth")))
    assert "better in 2 of 2 tasks" in verdict(run, run.routing)


def test_without_fine_tuned_rules_it_says_so(tmp_path):
    run = read_run(make_routed_run(tmp_path / "run", tuned=False))
    assert "there is no honest rival" in rules_table(run, run.routing).notes[-1]
    assert verdict(run, run.routing) == ""


def test_a_static_model_says_so_first(tmp_path):
    page = Page(render(read_run(make_routed_run(tmp_path / "run", static=True)), [], {}))
    start = page.text.index(HEADING)
    assert page.text[start:].startswith(f"{HEADING} The model became static. All 60,000 images")
    assert "100.00% of 60000 images keep the same blocks." in page.text
    assert "Never varied" not in page.text and "easiest" not in page.text
    assert "MACs per image on average" not in page.text and "BlockDrop, static" in page.text


def test_a_router_that_costs_more_than_it_saves_says_so(routed):
    rows = [replace(row, macs=80e6) if row.rule == "learned" else row for row in routed.routing.rows]
    run = replace(routed, routing=replace(routed.routing, rows=tuple(rows)))
    words = "It costs more than it saves: 80.00 M MACs per image, 70.00 M with all blocks and no router."
    assert words in routing_section(run, [run]).summary
    assert words not in routing_section(routed, [routed]).summary


def test_easy_and_hard_pictures_of_every_class(page, routed):
    assert page.all("h4") == [group.class_name for group in routed.routing.difficulty]
    assert page.all("span").count("easiest") == page.all("span").count("hardest") == 10
    shown = [a for tag, a in page.tags if tag == "img" and a["alt"].startswith("image test/")]
    assert len(shown) == 10 * 4 + 4 * 5 and all(a["src"].startswith("data:image/png") for a in shown)
    strips = [a["aria-label"] for _, a in page.tags if a.get("class") == "strip"]
    assert len(strips) == 60 + 4 and all(label.startswith("keeps layer1.0") for label in strips)


def test_pictures_that_are_lost(tmp_path):
    path = make_routed_run(tmp_path / "run")
    for file in (path / "routing").iterdir():
        file.unlink()
    page = Page(render(read_run(path), [], {}))
    assert page.all("div").count("no picture") == 60


def test_classes_are_named_with_their_task_where_there_are_more(tmp_path):
    run = read_run(make_routed_run(tmp_path / "run", tasks=("seg", "room")))
    contrasts = routing_section(run, [run]).contrasts
    assert [c.title for c in contrasts][::10] == ["room: plane", "all images"]


def test_clusters(routed):
    first, *_ = groups = routing_section(routed, [routed]).groups
    cluster = routed.routing.clusters[0]
    assert first.title == f"{cluster.pictures / 300:.0%} of the images" and len(groups) == 4
    assert first.note.startswith(f"{cluster.policies} policies, ") and first.keep == cluster.keep_rate


def test_latency_of_all_percentiles(routed, page):
    table = latency_table(routed.latency)
    assert [row.label for row in table.rows][:3] == ["batch 1", "before anything was skipped", "routed"]
    assert cells(table, "routed", "batch 1")[1] == ["4.3", "5.8", "7.2", "0.70"]
    assert cells(table, "routed, the worst case", "batch 32")[1] == ["125.1", "129.0", "134.0", "1.06"]
    assert "Latency" in page.all("h3")


def test_the_executors_of_the_routed_model_are_named(tmp_path, page):
    path = make_routed_run(tmp_path / "run")
    assert executor_words(path) == "" and "it ran by" not in page.text  # a file from before they were written
    file = path / "benchmark/benchmark.json"
    loaded = json.loads(file.read_text())
    rows = loaded["routing_latency"]["batch"]
    rows["1"]["executors"], rows["32"]["executors"] = {"codebook": 110}, {"mask": 4, "segments": 106}
    file.write_text(json.dumps(loaded))
    words = "Routed, it ran by codebook at batch 1; segments, mask at batch 32 (mask computes all blocks)."
    assert executor_words(path) == words and words in Page(render(read_run(path), [], {})).text


def test_what_hard_and_easy_pictures_cost(routed):
    quality = [n / 300 for n in range(300)]
    macs = tuple(70e6 if n < 60 else 40e6 for n in range(300))
    pictures = replace(routed.routing.pictures, macs=macs, full_quality={"room": quality})
    found = replace(routed.routing, pictures=pictures)
    assert difficulty_words(found) == [
        "MACs of the hardest and the easiest fifth of the images, by what the network with all blocks makes of them: "
        "room 70.00 M and 40.00 M."
    ]
    assert difficulty_words(replace(found, pictures=None)) == []
    assert difficulty_words(replace(found, policies=found.policies[:1])) == []


def test_latency_of_a_model_that_became_static():
    times = {
        "full": {"p50": 4.0, "p95": 5.0, "p99": math.nan},
        "static": {"p50": 3.0, "p95": 3.5, "p99": math.nan},
    }
    table = latency_table({1: times})
    assert [row.label for row in table.rows] == ["batch 1", "before anything was skipped", "static"]
    assert cells(table, "static", "batch 1")[1] == ["3.00", "3.50", "", "0.75"]  # too few calls for a p99
    assert "Router" not in " ".join(table.notes)


def test_nothing_measured_nothing_said(tmp_path):
    run = read_run(make_routed_run(tmp_path / "run", latency=False))
    assert routing_section(run, [run]).latency is None


@pytest.mark.slow
def test_while_it_is_learned_only_the_curves_are_there(tmp_path):
    path = make_routed_run(tmp_path / "run")
    for name in ("routing.json", "results.json", "policy.json", "cost.json"):
        (path / name).unlink()
    page = Page(write_report(path).read_text())
    assert HEADING in page.all("h2") and "How the router learned" in page.all("h3")
    assert "routing.json is not there yet: nothing on what pictures skip" in page.all("li")


@pytest.mark.slow
def test_the_whole_page_with_baselines(tmp_path):
    paths = [make_routed_run(tmp_path / f"g{gamma}", gamma) for gamma in (8, 2)]
    plain = make_run(tmp_path / "dense", "hard", tasks=("room",))
    page = Page(write_report(paths[0], [paths[1], plain]).read_text())
    assert page.open == [] and "The routers of 2 runs, joined by a line and labelled by gamma" in page.text
    assert page.all("h3")[:4] == [
        "Beside rules that look at no picture", "Easy and hard pictures", "Policies that are alike", "Latency",
    ]  # fmt: skip
    assert HEADING not in Page(write_report(plain, paths).read_text()).all("h2")


def test_what_a_task_costs_alone_is_beside_all_blocks(tmp_path, page):
    run = read_run(make_routed_run(tmp_path / "run", tasks=("room", "seg")))
    table = task_cost_table(run.routing)
    assert [column.title for column in table.columns] == ["room", "seg"]
    rows = {row.label: [cell.text for cell in row.cells] for row in table.rows}
    full, learned = run.routing.row("all", False), run.routing.learned
    assert len(rows) == len({row.rule for row in run.routing.rows})
    assert all(text.endswith("(1.00)") for text in rows[full.title])
    ratios = [learned.task_macs[task] / full.task_macs[task] for task in ("room", "seg")]
    assert [text.split()[1] for text in rows[learned.title]] == [f"({ratio:.2f})" for ratio in ratios]
    assert "one task alone" in Page(render(run, [], {})).text
    assert "one task alone" not in page.text


def test_classes_without_pictures_are_told_of(tmp_path, page):
    path = make_routed_run(tmp_path / "run")
    loaded = json.loads((path / "routing.json").read_text())
    for classes, told in ((10, False), (100, True)):
        for group in loaded["test"]["difficulty"]:
            group["classes"] = classes
        (path / "routing.json").write_text(json.dumps(loaded))
        words = (
            "The page shows the easiest and the hardest pictures of the first 10 of the 100 classes of room."
        )
        assert (words in summary([path])) is told
    assert words in Page(render(read_run(path), [], {})).text
    assert "The page shows the easiest" not in page.text  # an older file does not say how many there are


def test_a_static_model_that_gave_something_up_says_for_how_many(routed):
    seen = {**routed.routing.seen, "num_images": 10_001, "most_frequent_share": 10_000 / 10_001}
    found = replace(routed.routing, is_static=True, seen=seen)
    assert static_words(found).startswith("99.99% of 10,001 images of the training and validation splits")
    assert "what the others chose was given up" in static_words(found)


def test_what_val_loses_is_said_beside_what_was_asked():
    tasks = {
        "seg": {"measure": "quality", "host": 0.6, "val": 0.5958, "drop": 0.007},
        "room": {"measure": "accuracy", "host": 0.9, "val": 0.92, "drop": -0.02},
    }
    (words,) = quality_words({"max_drop": 0.01, "tasks": tasks})
    assert "seg fell by 0.7 % of its quality, room rose by 2.0 points of accuracy." in words
    assert words.endswith("At most 1 % was asked for (max_drop): that is kept.")
    (words,) = quality_words({"max_drop": 0.005, "tasks": tasks})
    assert words.endswith("At most 0.5 % was asked for (max_drop): that is not kept.")
    (words,) = quality_words({"max_drop": None, "tasks": tasks})
    assert "max_drop" not in words
    assert quality_words({}) == []


def test_rules_that_were_not_to_be_tuned_are_named(tmp_path):
    run = read_run(make_routed_run(tmp_path / "run", tuned=False))
    run = replace(run, routing=replace(run.routing, compare_epochs=0))
    note = rules_table(run, run.routing).notes[-1]
    assert note.startswith("routing.compare_epochs is 0, so no rule was fine-tuned")


def test_what_training_measured_is_shown_with_its_circumstances(tmp_path):
    path = make_routed_run(tmp_path / "run", latency=False)
    brief = {"pictures": 64, "calls": 100, "machine": {"device": "x86_64", "threads": 2}}
    (path / BRIEF).write_text(json.dumps(brief | {"batch": {"1": LATENCY["batch"]["1"]}}))
    run = read_run(path)
    table = routing_section(run, [run]).latency
    assert cells(table, "routed", "batch 1")[1] == ["4.34", "5.80", "7.20", "0.70"]
    assert "100 calls each, in turn, on 64 test images" in table.notes[-1]
    assert "2 threads of x86_64" in table.notes[-1]
    (path / "benchmark").mkdir()
    (path / "benchmark/benchmark.json").write_text(json.dumps({"routing_latency": LATENCY}))
    assert len(routing_section(run, [run]).latency.notes) == 1  # what was measured at length takes its place
