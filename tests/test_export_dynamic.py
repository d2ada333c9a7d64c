"""`export --dynamic-skip` from the shell: what it writes and prints on a run with a router, and what it refuses."""

import json
import os
import shutil
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import perceptkit as pk
from perceptkit import api
from perceptkit.compact import build
from perceptkit.compact.parity_file import record, recorded
from perceptkit.compact.route_cost import route_cost
from perceptkit.compact.routed import RoutedNet
from perceptkit.errors import SpecError
from perceptkit.model.build import build_supernet
from perceptkit.model.router import build_router
from perceptkit.report.routing_file import read_latency
from perceptkit.runtime.routed_latency import WARMUP
from perceptkit.spec.router import RouterSpec
from perceptkit.train import evaluate_model
from tests.test_export import run, shell  # noqa: F401  # fixtures


@pytest.fixture(scope="module")
def routed_run(run, tmp_path_factory):  # noqa: F811
    """The run of tests/test_export.py, with an artifact that has a router: it keeps some blocks of some pictures."""
    out = tmp_path_factory.mktemp("routed") / "run"
    shutil.copytree(run, out)
    data = out.parent / "data"
    shutil.copytree(run.parent / "data", data)
    told = (out / "resolved.yaml").read_text()
    (out / "resolved.yaml").write_text(told.replace(str(run.parent / "data"), str(data)))
    shutil.rmtree(out / "artifact")
    shutil.rmtree(out / "exports", ignore_errors=True)
    _, manifest = build.read(run / "artifact")
    m = replace(manifest, router=RouterSpec(name="resnet8"))
    m = replace(m, plan=m.plan.with_routed(range(len(m.plan.blocks))))
    torch.manual_seed(0)
    net = build_supernet(m.backbone, m.heads, m.tasks, m.size_HW).eval()
    router = build_router(m.router, len(m.plan.routed()), m.size_HW).eval()
    torch.nn.init.normal_(router.decide.weight)
    torch.nn.init.zeros_(router.decide.bias)
    build.write_artifact(out / "artifact", net, m, router)
    return out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "name", "printed"),
    [
        ("branch", "model_branch.onnx", "takes one picture of 32 x 32"),
        ("gather", "model_gather.onnx", "takes any batch of 32 x 32"),
        ("codebook", "codebook", "networks for"),
    ],
)
def test_export_then_eval(routed_run, shell, how, name, printed):  # noqa: F811
    more = ["--policies", "2"] if how == "codebook" else []
    code, out, err = shell("export", routed_run, "--dynamic-skip", how, "--pictures", "3", *more)
    assert code == 0, err
    written = routed_run / "exports" / name
    assert out.splitlines()[0] == str(written) and printed in out
    assert "under 16 tables of decisions" in out and "times as fast as without skipping" in out
    record = json.loads(((written if how == "codebook" else written.parent) / "parity.json").read_text())
    entry = record if how == "codebook" else record[name]
    calibrated = {"split": "train", "pictures": 3} if how == "codebook" else None
    assert entry.get("calibrated_on") == calibrated and entry["speed"]["split"] == "val"
    assert (
        entry["speed"]["batch"] == (1 if how == "branch" else 3) and entry["speed"]["speedup"]["median"] > 0
    )
    figures = shell("eval", written)[1]
    if how != "codebook":  # which may run blocks that were not wanted
        expected = [float(line.split("\t")[1]) for line in shell("eval", routed_run)[1].splitlines()]
        got = [float(line.split("\t")[1]) for line in figures.splitlines()]
        assert got == pytest.approx(expected, abs=2e-3)
    code, _, err = shell("export", written)
    assert code != 0 and "export" in err


@pytest.mark.slow
def test_a_codebook_that_drops_blocks_says_what_that_costs(routed_run, shell, tmp_path):  # noqa: F811
    code, out, err = shell(
        "export", routed_run, "--dynamic-skip", "codebook", "--nearest", "--policies", "1", "--pictures", "3",
        "--max-drop", "0", "--out", tmp_path / "book",
    )  # fmt: skip
    assert code == 0, err
    entry = json.loads((tmp_path / "book/parity.json").read_text())
    assert entry["measured_on"] == "val" and entry["max_drop"] == 0 and "measured on val:" in out
    assert {names for row in entry["accuracy"].values() for pair in row.values() for names in pair} == {
        "own decisions",
        "codebook",
    }
    assert entry["ok"] == (not entry["lost"]) == ("warning" not in err)
    assert "that were wanted are dropped" in out


@pytest.mark.parametrize(
    ("why", "pictures"),
    [("{path} belongs to no run folder: say which data with --data TASKS", 200), ("--pictures is 0", 0)],
)
def test_a_file_that_was_not_timed_says_why(tmp_path, monkeypatch, why, pictures):
    """Of an artifact far from its run there are no pictures; the file itself is proved without them."""
    path, to = tmp_path / "artifact", tmp_path / "model_branch.onnx"
    if not pictures:
        monkeypatch.setattr(api, "data_of", lambda *args: None)
        monkeypatch.setattr(evaluate_model, "sample_images", lambda *args: iter(()))

    def export_dynamic(network, m, to, *more):
        to.write_bytes(b"")
        record(to, {"dynamic_skip": "branch"})

    monkeypatch.setattr("perceptkit.compact.export_dynamic.export_dynamic", export_dynamic)
    m = SimpleNamespace(size_HW=(32, 32), mean=(0.0,) * 3, std=(1.0,) * 3)
    network = RoutedNet.__new__(RoutedNet)
    model = SimpleNamespace(manifest=m, tasks={}, exportable=lambda: network)
    api._export_dynamic(model, to, "branch", path, None, pictures, None, False, "val", 5.0)
    assert recorded(to)["not_timed"] == why.format(path=path)


def test_training_times_the_executors_that_load_chooses_from(tmp_path, monkeypatch):
    network, policies = RoutedNet.__new__(RoutedNet), ((True, False),)
    m = SimpleNamespace(size_HW=(8, 8), mean=(0.0,) * 3, std=(1.0,) * 3, policies=policies)
    monkeypatch.setattr("perceptkit.compact.build.read", lambda folder: (network, m))
    monkeypatch.setattr("perceptkit.compact.build.host_network", lambda manifest: "its host")
    images = torch.zeros(2, 3, 8, 8)
    monkeypatch.setattr(evaluate_model, "sample_images", lambda *args: iter([images]))
    told = lambda *args, **more: {"given": [more["policies"], more["host"]]}  # noqa: E731
    monkeypatch.setattr("perceptkit.runtime.routed_latency.brief_latency", told)
    api._measure_briefly(tmp_path, None, "cpu")
    assert json.loads((tmp_path / "routing_latency.json").read_text())["given"] == [
        [[True, False]],
        "its host",
    ]


def test_kill_ends_an_export_as_ctrl_c_does(tmp_path, monkeypatch, shell):  # noqa: F811
    from perceptkit.compact.export import replacing

    def killed(*args, **more):
        with replacing(tmp_path / "model.onnx") as unfinished:
            unfinished.write_text("half")
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(api, "export", killed)
    code, _, err = shell("export", tmp_path)
    assert code == 130 and "interrupted" in err and not list(tmp_path.iterdir())
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dynamic-skip", "if"], "'if' is no way to skip; choose one of branch, gather, codebook"),
        (["--dynamic-skip", "--format", "aoti"], "--dynamic-skip writes onnx, not aoti"),
        (["--dynamic-skip", "gather", "--int8"], "drop --int8 and --precision"),
        (["--dynamic-skip", "--precision", "fp16"], "drop --int8 and --precision"),
        (["--dynamic-skip", "--per-task"], "drop --per-task"),
        (["--policies", "3"], "--policies is of --dynamic-skip codebook"),
        (["--dynamic-skip", "gather", "--nearest"], "--nearest is of --dynamic-skip codebook"),
        (["--dynamic-skip", "codebook", "--max-drop", "1"], "codebooks with --nearest or of one policy"),
        (["--dynamic-skip", "codebook", "--nearest", "--max-drop", "-1"], "is a percentage"),
        (["--dynamic-skip", "codebook", "--policies", "0"], "--policies must be at least 1"),
        (["--format", "torch"], "decides by picture which blocks run"),
        (["--format", "aoti"], "--dynamic-skip branch"),
        (["--int8"], "decides by picture"),
        (["--per-task"], "decides by picture"),
    ],
)
def test_refused(routed_run, shell, arguments, message):  # noqa: F811
    code, _, err = shell("export", routed_run, *arguments)
    assert code == 2 and message in err
    assert not (routed_run / "exports").exists() or not any(
        "model.pt2" in p.name for p in (routed_run / "exports").iterdir()
    )


def test_a_model_without_router(run, shell):  # noqa: F811
    code, _, err = shell("export", run, "--dynamic-skip")
    assert code == 2 and "this model has no router" in err


def test_a_codebook_needs_pictures(routed_run, tmp_path):
    pk.export(routed_run, tmp_path / "copy", format="artifact")
    with pytest.raises(SpecError, match="belongs to no run folder: say which data with --data TASKS"):
        pk.export(tmp_path / "copy", dynamic_skip="codebook")


@pytest.mark.slow
def test_benchmark_times_it_on_pictures(routed_run, shell):  # noqa: F811
    code, out, err = shell(
        "benchmark",
        routed_run,
        "--batch",
        "1",
        "2",
        "--rounds",
        "2",
        "--variants",
        "hard_shared",
        "compact",
        "compiled",
    )
    assert code == 0, err
    found = json.loads((routed_run / "benchmark/benchmark.json").read_text())
    latency = found["routing_latency"]
    assert found["rows"]["compact"]["macs"] == round(latency["macs"]) != found["rows"]["hard_shared"]["macs"]
    assert "every block and a mask" in found["left_out"]["compiled"]
    for batch, row in latency["batch"].items():
        for name in ("full", "routed", "worst"):
            assert 0 < row[name]["p50"] <= row[name]["p95"] <= row[name]["p99"]
        assert sum(row["executors"].values()) == latency["calls"] + WARMUP and row["executors"].keys() != {
            "mask"
        }
        assert f"\n| {batch} | " in out
    assert read_latency(routed_run)[1]["worst"]["p99"] == latency["batch"]["1"]["worst"]["p99"]


@pytest.mark.slow
def test_without_pictures_a_router_is_not_timed(routed_run, tmp_path):
    pk.export(routed_run, tmp_path / "copy", format="artifact")
    found = pk.benchmark(tmp_path / "copy", [1], 1, ["hard_shared", "compact"], tmp_path / "out")
    assert found["rows"].keys() == {"hard_shared"} and "--data" in found["left_out"]["compact"]


@pytest.mark.slow
def test_a_routed_model_is_timed_beside_its_host(run, routed_run, tmp_path, monkeypatch, capsys):  # noqa: F811
    sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))  # scripts, not a package
    import bench_routing

    monkeypatch.setattr(bench_routing, "HOST_CALLS", 3)
    out, threads = tmp_path / "found.json", torch.get_num_threads()
    arguments = ["--artifact", str(routed_run), "--host", str(run), "--batch", "1", "2", "--out", str(out)]
    code = bench_routing.main(arguments)
    torch.set_num_threads(threads)
    rows = json.loads(out.read_text())["results"]
    assert [row["batch"] for row in rows] == [1, 2]
    assert [list(row["others"]) for row in rows] == [
        ["branch", "codebook", bench_routing.STATIC],
        ["segments", "codebook", bench_routing.STATIC],
    ]
    full, m = pk.load(run).manifest.size["macs"], pk.load(routed_run)
    cost = route_cost(m.exportable(), m.manifest.size_HW)
    least, most = (1 - (cost.router + macs) / full for macs in (cost.full, cost.always))
    assert all(least <= row["predicted_saving"] <= most for row in rows)
    static = rows[0]["others"][bench_routing.STATIC]
    assert least <= static["predicted_saving"] <= most + cost.router / full
    assert code == int(not bench_routing.holds(rows[0])) and "beside its host" in capsys.readouterr().out
    bench_routing.main(["--artifact", str(routed_run), "--host", "--batch", "1", "--out", str(out)])
    torch.set_num_threads(threads)
    (row,) = json.loads(out.read_text())["results"]  # the host by the manifest
    assert row["predicted_saving"] == pytest.approx(rows[0]["predicted_saving"], abs=0.01)


@pytest.mark.slow
def test_the_tools_time_an_artifact_on_its_own_pictures(run, routed_run, tmp_path, capsys):  # noqa: F811
    sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))  # scripts, not a package
    import bench_dynamic
    import bench_routing

    out, threads = tmp_path / "found.json", torch.get_num_threads()
    arguments = ["--artifact", str(routed_run), "--batch", "1", "2", "--rounds", "2", "--out", str(out)]
    bench_routing.main(arguments)
    torch.set_num_threads(threads)
    rows = json.loads(out.read_text())["results"]
    with torch.no_grad():
        network = pk.load(routed_run, device="cpu").exportable()
        assert rows[0]["policies"] >= 1 and 0 <= rows[0]["kept_fraction"] <= 1
        assert len(rows[0]["executors"]) > 3 and "mask" not in rows[0]["executors"]
    bench_dynamic.main([*arguments, "--host", str(run), "--policies", "2", "--ways", "branch", "codebook"])
    rows = json.loads(out.read_text())["rows"]
    assert [(row["batch"], row["variant"]) for row in rows] == [
        (1, "static"), (1, "branch"), (1, "codebook"), (2, "static"), (2, "codebook"),
    ]  # fmt: skip
    assert all(row["macs"] > 0 and row["seconds"]["median"] > 0 for row in rows if row["variant"] != "static")
    assert "test pictures keep" in capsys.readouterr().out
    with pytest.raises(SpecError, match="has no router"):
        bench_dynamic.main(["--artifact", str(run)])
    assert len(network.plan.routed()) > 0
