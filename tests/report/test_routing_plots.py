"""Plots of what a router does show what is in the file."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from perceptkit.report.plots import write_plots
from perceptkit.report.routing_file import by_difficulty
from perceptkit.report.routing_plots import ROUTING_PLOTS
from perceptkit.report.run_folder import read_run
from perceptkit.report.theme import LIGHT, THEMES, style
from tests.report.fake_routing import make_routed_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Routers of two gammas, to be read only."""
    base = tmp_path_factory.mktemp("routed")
    return [read_run(make_routed_run(base / f"g{gamma}", gamma)) for gamma in (8, 2)]


@pytest.fixture(scope="module")
def static(tmp_path_factory):
    return read_run(make_routed_run(tmp_path_factory.mktemp("static") / "run", static=True, tuned=False))


def draw(name, runs):
    with style(LIGHT):
        return ROUTING_PLOTS[name](runs, LIGHT)


def words(figure) -> set[str]:
    figure.canvas.draw()
    return {text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))} - {""}


def test_keep_rate_and_its_deviation(runs):
    upper, lower = draw("routing_keep_rate", runs).axes
    rate = [bar.get_height() for bar in upper.patches]
    assert rate == pytest.approx(runs[0].routing.keep_rate)
    assert [bar.get_height() for bar in lower.patches] == pytest.approx([(p * (1 - p)) ** 0.5 for p in rate])
    (seen,) = upper.get_lines()
    assert list(seen.get_ydata()) == runs[0].routing.seen["keep_rate"]
    assert [label.get_text() for label in lower.get_xticklabels()] == list(runs[0].routing.blocks)


def test_groups_by_difficulty_by_hand():
    quality = np.array([np.nan, 0.9, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0])
    macs = np.array([99.0, 1, 9, 9, 7, 5, 5, 5, 3, 3, 1])
    mean_quality, mean, std = by_difficulty(quality, macs)
    assert mean_quality.tolist() == pytest.approx([0.15, 0.35, 0.55, 0.75, 0.95])
    assert mean.tolist() == [9, 6, 5, 3, 1] and std.tolist() == [0, 1, 0, 0, 0]


@pytest.mark.parametrize("quality", [np.full(20, np.nan), np.full(20, 0.5), np.linspace(0, 1, 9)])
def test_no_groups_where_there_is_nothing_to_tell_apart(quality):
    assert by_difficulty(quality, np.ones_like(quality)) is None


def test_difficulty(runs):
    everything, room = draw("routing_difficulty", runs).axes
    assert sum(bar.get_height() for bar in everything.patches) == 300
    (curve,) = room.get_lines()
    assert curve.get_ydata()[0] > curve.get_ydata()[-1]  # hard pictures cost more


def test_no_difficulty_where_all_pictures_cost_the_same_or_none_is_known(runs, static):
    assert draw("routing_difficulty", [static]) is None
    found = replace(runs[0].routing, pictures=None)
    assert draw("routing_difficulty", [replace(runs[0], routing=found)]) is None


def test_tradeoff_joins_the_routers_of_all_runs_from_cheap_to_costly(runs, finished):
    (ax,) = draw("routing_tradeoff", [*runs, finished]).axes  # `finished` has no router
    lines = [line for line in ax.get_lines() if len(line.get_xdata()) == 2]
    (curve,) = lines
    learned = [run.routing.row("learned", True) for run in (runs[1], runs[0])]
    assert list(curve.get_xdata()) == pytest.approx([row.macs / 1e6 for row in learned])
    assert list(curve.get_ydata()) == [row.metrics["room"]["top1"] for row in learned]
    assert len(ax.get_lines()) == 1 + 2 * 13


def test_tradeoff_in_words(runs):
    found = words(draw("routing_tradeoff", runs))
    assert {"\N{GREEK SMALL LETTER GAMMA} 8", "\N{GREEK SMALL LETTER GAMMA} 2", "MACs, M"} <= found
    assert {"learned", "all blocks", "most frequent policy", "DistK", "hollow: not fine-tuned"} <= found
    assert "room   top1 \N{UPWARDS ARROW}" in found


def test_what_was_fine_tuned_decides_what_is_seen(runs, static):
    low, _ = draw("routing_tradeoff", runs).axes[0].get_ylim()
    untuned = runs[0].routing.row("first_k", False).metrics["room"]["top1"]
    assert untuned < low < runs[0].routing.row("first_k", True).metrics["room"]["top1"]
    low, _ = draw("routing_tradeoff", [static]).axes[0].get_ylim()
    assert low < untuned  # nothing else was tried


def test_none_without_a_router(finished, runs):
    assert [draw(name, [finished, *runs]) for name in ROUTING_PLOTS] == [None] * 3


@pytest.mark.slow
def test_they_are_written_light_and_dark(runs, tmp_path):
    written = write_plots(runs[0], tmp_path / "plots", runs[1:])
    assert {*ROUTING_PLOTS, "router", "keep_table"} <= set(written)
    for name in ROUTING_PLOTS:
        for theme in THEMES:
            with Image.open(written[name][theme.name]) as opened:
                pixels = np.asarray(opened.convert("RGB"), dtype=int)
            background = [int(theme.background[i : i + 2], 16) for i in (1, 3, 5)]
            assert (pixels[0, 0] == background).all()
            assert (abs(pixels - background) > 24).any(axis=-1).mean() > 0.01
