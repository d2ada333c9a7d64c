"""How tasks relate, how decided a policy is, and what blocks are worth: numbers by hand, files, plots and words."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from perceptkit import cli
from perceptkit.baselines.sharing.table import _WHOLE
from perceptkit.report.analysis_file import (
    Outcome,
    entropy_bits,
    open_keep_prob,
    policy_correlation,
    read_affinity,
)
from perceptkit.report.analysis_plots import policy_entropy, task_relations
from perceptkit.report.analysis_section import WITHOUT_SKIPS, analysis_section
from perceptkit.report.lesion_plots import lesion_deleted, lesion_random, lesion_reordered, lost
from perceptkit.report.page import NO_PLAN, render
from perceptkit.report.run_folder import Run, read_run
from perceptkit.report.theme import LIGHT, style
from tests.report.fake_run import BLOCKS, make_run

TASKS = ("seg", "room")
EMPTY = {"quality": {"seg": 0.1, "room": None}, "score": 0.1}


def outcome(seg: float, room: float) -> dict:
    return {"quality": {"seg": seg, "room": room}, "score": (seg + room) / 2}


def write_analysis(path: Path) -> Path:
    """Two tasks of an AdaShare run: `layer4.0` is the room's own, `layer3.1` is kept by none of the two."""
    make_run(path, tasks=TASKS)
    affinity = {
        "split": "val", "pictures": 40, "tasks": TASKS,
        "affinity": [[1, 0.7], [0.7, 1]], "by_chance": [[0.6, 0.55], [0.55, 0.5]],
    }  # fmt: skip
    lesions = {
        "split": "val",
        "pictures": 40,
        "tasks": TASKS,
        "blocks": BLOCKS,
        "intact": outcome(0.6, 0.8),
        "deleted": [
            {"block": block, **outcome(0.6 - 0.05 * b, 0.8)} for b, block in enumerate(BLOCKS) if b != 7
        ],
        "random": [
            {"count": count, "blocks": list(BLOCKS[:count]), **outcome(0.6 - 0.1 * count + 0.02 * draw, 0.8)}
            for count in (1, 3)
            for draw in (0, 1)
        ],
        "reordered": [{"tau": t, "order": list(BLOCKS), **outcome(0.5 * t, 0.8)} for t in (0.2, 0.8)],
    }
    (path / "affinity.json").write_text(json.dumps(affinity))
    (path / "lesion.json").write_text(json.dumps(lesions))
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    return read_run(write_analysis(tmp_path_factory.mktemp("runs") / "run"))


def drawn(plot, run):
    with style(LIGHT):
        return plot(run, LIGHT)


def titles(made) -> list[str]:
    return [ax.get_title(loc="left") for ax in made.axes if ax.get_title(loc="left")]


def texts(ax) -> list[str]:
    return [text.get_text() for text in ax.texts]


# numbers


def test_entropy_by_hand():
    expected = [0, 1, 0, -0.9 * math.log2(0.9) - 0.1 * math.log2(0.1)]
    assert entropy_bits(np.array([0, 0.5, 1, 0.9])) == pytest.approx(expected)


def test_correlation_by_hand():
    # b falls where a rises; c is a, halved; d never varies; e is at right angles to a
    keep_KL = np.array([[0.1, 0.5, 0.9], [0.9, 0.5, 0.1], [0.05, 0.25, 0.45], [0.5] * 3, [0.3, 0.6, 0.3]])
    found = policy_correlation(keep_KL)
    assert found[0, :3] == pytest.approx([1, -1, 1]) and found[0, 4] == pytest.approx(0)
    assert np.isnan(found[3]).all() and found == pytest.approx(found.T, nan_ok=True)


def test_only_open_blocks_count():
    row = {"keep_prob": {"a": [0.5, 0.5, 0.9], "b": [0.5, 0.4, 0.1]}, "open_blocks": 2}
    tasks, keep_KL = open_keep_prob(row)
    assert tasks == ("a", "b") and keep_KL.tolist() == [[0.5, 0.9], [0.4, 0.1]]
    assert open_keep_prob({"keep_prob": row["keep_prob"]})[1].shape == (2, 3)


def test_lost_by_hand():
    assert lost(0.5, 0.4) == pytest.approx(0.2) and lost(0.5, 0.6) == pytest.approx(-0.2)
    assert math.isnan(lost(0.0, 0.4))


# files


def test_files_are_read(run):
    assert run.affinity is not None and run.lesions is not None
    assert run.affinity.affinity_KK[0, 1] == 0.7 and run.affinity.tasks == TASKS
    assert run.lesions.intact == Outcome({"seg": 0.6, "room": 0.8}, pytest.approx(0.7))
    assert list(run.lesions.random) == [1, 3] and [len(of) for of in run.lesions.random.values()] == [2, 2]
    assert [tau for tau, _ in run.lesions.reordered] == [0.8, 0.2]
    assert BLOCKS[7] not in run.lesions.deleted


def test_a_run_without_them_is_whole(finished):
    assert finished.affinity is None and finished.lesions is None and finished.missing == ()


@pytest.mark.parametrize("name", ["affinity.json", "lesion.json"])
@pytest.mark.parametrize("text", ["[", "[]", "{}", '{"tasks": 3}'])
def test_damaged_files_are_named(tmp_path, name, text):
    path = make_run(tmp_path / "run", tasks=TASKS)
    (path / name).write_text(text)
    (line,) = read_run(path).missing
    assert line.startswith(f"{name} cannot be read")


def test_a_matrix_of_other_tasks_is_refused(tmp_path):
    file = tmp_path / "affinity.json"
    file.write_text(
        '{"split": "val", "pictures": 1, "tasks": ["a"], "affinity": [[1, 0]], "by_chance": [[1]]}'
    )
    with pytest.raises(ValueError, match="does not fit"):
        read_affinity(file)


def test_a_task_without_labels(tmp_path):
    path = write_analysis(tmp_path / "run")
    loaded = json.loads((path / "lesion.json").read_text())
    for row in (loaded["intact"], *loaded["deleted"], *loaded["random"], *loaded["reordered"]):
        row.update(EMPTY)
    (path / "lesion.json").write_text(json.dumps(loaded))
    for plot in (lesion_deleted, lesion_random, lesion_reordered):
        assert drawn(plot, read_run(path)) is not None


# plots


def test_entropy_has_a_panel_for_all_tasks_and_each(run):
    made = drawn(policy_entropy, run)
    assert titles(made) == ["all tasks", *TASKS]
    rows = run.of_kind("policy")
    expected = [entropy_bits(np.array(row["keep_prob"]["seg"])[-row["open_blocks"] :]).mean() for row in rows]
    assert made.axes[1].lines[0].get_ydata().tolist() == pytest.approx(expected)
    assert expected[-1] < expected[0]
    assert drawn(policy_entropy, replace(run, rows=(rows[0],))) is None


def test_relations(run):
    made = drawn(task_relations, run)
    assert titles(made) == ["correlation of policies", "task affinity"]
    assert texts(made.axes[1]) == ["1.00", "0.70", "0.70", "1.00"]
    # above chance: (0.7 - 0.55) / (1 - 0.55)
    assert made.axes[1].images[0].get_array()[0, 1] == pytest.approx(1 / 3)
    assert titles(drawn(task_relations, replace(run, rows=()))) == ["task affinity"]
    assert titles(drawn(task_relations, replace(run, affinity=None))) == ["correlation of policies"]
    assert drawn(task_relations, replace(run, rows=(), affinity=None)) is None


def test_a_relation_that_does_not_exist_is_a_dash(run):
    row = {"kind": "policy", "keep_prob": {"a": [0.5, 0.5], "b": [0.1, 0.9]}}
    made = drawn(task_relations, replace(run, rows=(row,), affinity=None))
    assert texts(made.axes[0]) == ["\N{EN DASH}"] * 3 + ["1.00"]


def test_a_cell_for_each_block_that_a_task_runs(run):
    made = drawn(lesion_deleted, run)
    (ax,) = made.axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["all tasks", *TASKS]
    seg = [text.get_text() for text in ax.texts if text.get_position()[1] == 1]
    # 100 * 0.05 b / 0.6 of the blocks that it runs, 11111101, but for the last, which was not studied; then all blocks
    assert seg == ["0", "8", "17", "25", "33", "42", "0.60"]
    room = [text.get_text() for text in ax.texts if text.get_position()[1] == 2]
    assert room == ["0"] * 5 + ["0.80"]  # 11011010


def test_means_and_spread_over_draws(run):
    made = drawn(lesion_random, run)
    assert titles(made) == ["all tasks", *TASKS]
    line = made.axes[1].lines[-1]
    assert line.get_xdata().tolist() == [0, 1, 3]
    assert line.get_ydata().tolist() == pytest.approx([0.6, 0.51, 0.31])
    band = made.axes[1].collections[0].get_paths()[0].vertices[:, 1]
    assert band.max() == 0.6 and band.min() == pytest.approx(0.31 - 0.02 / math.sqrt(2))


def test_orders_by_tau(run):
    ax = drawn(lesion_reordered, run).axes[1]
    points = ax.lines[-1]
    assert points.get_xdata().tolist() == [1, 0.8, 0.2]
    assert points.get_ydata().tolist() == pytest.approx([0.6, 0.4, 0.1])
    assert ax.xaxis_inverted()


# words


def test_words(run):
    section = analysis_section(run)
    assert "40 images of val" in section.affinity
    assert "Nearest are seg and room, with 0.70 where chance gives 0.55." in section.affinity
    assert (
        "Without layer4.0 the most is lost: 21% of the mean quality, which is 0.700 with all"
        in section.lesions[1]
    )
    assert section.lesions[2] == "1 of 7 blocks can each be deleted for less than 1% of it: layer1.0."
    assert len(section.lesions) == 3 and section.command == ""
    assert "decided: kept with a probability of at most 0.1 or at least 0.9" in section.decided


def test_no_block_that_matters(run):
    found = replace(run, lesions=replace(run.lesions, deleted={"layer1.0": run.lesions.intact}))
    assert "no single one is needed" in analysis_section(found).lesions[1]


def test_blocks_that_cannot_change_places(run):
    found = replace(run, lesions=replace(run.lesions, reordered=[]))
    assert analysis_section(found).lesions[-1].startswith("No two neighbouring blocks")
    assert drawn(lesion_reordered, found) is None


def test_the_page_says_how_to_measure_what_was_not(run, finished):
    command = f"perceptkit report {finished.path} --lesion"
    assert analysis_section(finished).command == command and command in render(finished, [], {})
    page = render(
        run, [], dict.fromkeys(("task_relations", "lesion_deleted"), {"light": "data:,", "dark": "data:,"})
    )
    assert "What blocks are worth" in page and "How tasks relate" in page and "--lesion" not in page


@pytest.mark.parametrize("method", ["single", "hard", "stochastic_depth", *sorted(_WHOLE)])
def test_no_study_is_advised_that_would_be_refused(run_of, method):
    made = run_of("made", method=method)
    assert made.finished and made.plan is not None  # a plan that keeps all is written for each
    command = f"perceptkit report {made.path} --lesion"
    assert analysis_section(made).command == ("" if method in _WHOLE else command)
    assert ("--lesion" in render(made, [], {})) is (method not in _WHOLE)


def test_methods_without_skips_are_those_with_a_network_of_their_own():
    assert set(_WHOLE) == WITHOUT_SKIPS == set(NO_PLAN) - {"single"}


def test_a_study_is_for_the_page(tmp_path, capsys):
    path = make_run(tmp_path / "run", tasks=TASKS)
    assert cli.main(["report", str(path), "--lesion", "--markdown"]) == 2
    assert "--lesion is for the page" in capsys.readouterr().err
