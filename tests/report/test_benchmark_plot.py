"""The picture of a benchmark."""

from perceptkit.report.benchmark_plot import draw, write_benchmark_plot
from perceptkit.report.theme import LIGHT, style


def timed(median: float, speedup: float) -> dict:
    quartiles = {"q1": 0.9 * median, "median": median, "q3": 1.2 * median}
    return {"ms": quartiles, "speedup": {"q1": speedup, "median": speedup, "q3": speedup}}


FOUND = {
    "reference": "single_nets",
    "rows": {
        "single_nets": {"title": "separate nets", "batches": {"1": timed(30.0, 1.0), "8": timed(90.0, 1.0)}},
        "compact": {"title": "compact", "batches": {"1": timed(10.0, 3.0), "8": timed(45.0, 2.0)}},
    },
}


def test_bars_are_medians_and_labels_speedups():
    with style(LIGHT):
        axes = draw(FOUND, LIGHT).axes
    assert [ax.get_title(loc="left") for ax in axes] == ["batch 1", "batch 8"]
    assert [[bar.get_width() for bar in ax.patches] for ax in axes] == [[30.0, 10.0], [90.0, 45.0]]
    assert [[text.get_text().strip() for text in ax.texts] for ax in axes] == [
        ["1.0x", "3.0x"],
        ["1.0x", "2.0x"],
    ]
    assert [label.get_text() for label in axes[0].get_yticklabels()] == ["separate nets", "compact"]


def test_labels_stay_inside():
    with style(LIGHT):
        for ax in draw(FOUND, LIGHT).axes:
            assert max(text.get_position()[0] for text in ax.texts) < 0.9 * ax.get_xlim()[1]


def test_writes_a_png(tmp_path):
    write_benchmark_plot(FOUND, tmp_path / "new/benchmark.png")
    assert (tmp_path / "new/benchmark.png").read_bytes().startswith(b"\x89PNG")
