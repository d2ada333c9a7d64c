"""Latency of several artifacts at once."""

from types import SimpleNamespace

import pytest

from perceptkit import api
from perceptkit.errors import SpecError
from perceptkit.runtime import side_by_side
from perceptkit.runtime.side_by_side import latencies_ms
from tests.report.fake_run import make_run


def test_a_number_for_each(artifact):
    said = []
    found = latencies_ms({"one": artifact, "two": artifact}, rounds=3, say=said.append)
    assert list(found) == ["one", "two"] and all(0 < ms < 10_000 for ms in found.values())
    assert said == ["timing 2 models, 3 rounds"]


def test_a_model_that_looks_at_pictures_is_left_out(artifact, monkeypatch):
    routed = SimpleNamespace(manifest=SimpleNamespace(router="a router"))
    monkeypatch.setattr(side_by_side, "load", lambda *arguments, **more: routed)
    assert latencies_ms({"one": artifact}) == {}


def test_compare_measures_it(artifact, tmp_path):
    measured, other = make_run(tmp_path / "measured", "hard"), make_run(tmp_path / "other")
    (measured / "artifact").symlink_to(artifact)
    rows = api.compare([measured, other], latency=True)["rows"]
    assert rows[0]["latency_ms"]["mean"] > 0 and rows[1]["latency_ms"]["mean"] is None


def test_compare_refuses_before_it_measures(tmp_path, monkeypatch):
    monkeypatch.setattr(side_by_side, "latencies_ms", lambda *arguments, **more: pytest.fail("measured"))
    with pytest.raises(SpecError):
        api.compare([make_run(tmp_path / "unfinished", upto="search")], latency=True)
