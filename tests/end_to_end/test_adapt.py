"""One base, several domains: adapted by every method, added, listed, loaded, removed; refusals."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import perceptkit as pk
from perceptkit.cli import main
from perceptkit.compact import build
from perceptkit.compact.domains import read_domain
from perceptkit.compact.verify import probe_images
from perceptkit.errors import ExportError, SpecError
from perceptkit.model.plan import Plan
from perceptkit.report.chain_file import read_chain
from perceptkit.report.chain_table import chain_table
from perceptkit.spec.adaptation import ADAPTATIONS
from perceptkit.spec.export import ExportSpec

DATA = {"source": "scenes", "size": [32, 32], "count": {"train": 24, "val": 4, "test": 4}}
RECIPE = """\
version: 1
backbone: {name: test_resnet, weights: none}
heads: {channels: 16}
sharing: {method: adashare, sparsity: 0.0, sharing: 0.0}
stages:
  - {name: warmup, epochs: 1}
  - {name: search, epochs: 2, curriculum: top_down, speed: 1, policy_fraction: 0.5, policy_lr: 0.3}
  - {name: retrain, epochs: 1, start: search}
optim: {name: adamw, lr: 3e-3, clip_norm: 5.0}
loader: {batch: 4, workers: 0}
seed: 3
"""
SHORT = ["stages.adapt.epochs=1", "loader.batch=4", "loader.workers=0"]
FAST = ("spottune",)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("adapt")


def tasks_file(folder, name, tasks, **data):
    path = folder / f"{name}.yaml"
    path.write_text(
        yaml.safe_dump({"version": 1, "name": name, "data": DATA | data, "tasks": tasks}, sort_keys=False)
    )
    return path


@pytest.fixture(scope="module")
def base(folder):
    """A run of two tasks on one style of scenes."""
    tasks = {"seg": {"type": "segmentation"}, "room": {"type": "classification"}}
    (folder / "recipe.yaml").write_text(RECIPE)
    path = tasks_file(folder, "studio", tasks)
    return pk.train(path, recipe=folder / "recipe.yaml", out=folder / "base", quiet=True).path


@pytest.fixture(scope="module")
def dusk(folder):
    """Another style; one task that the base has, one that it has not."""
    return tasks_file(
        folder, "dusk", {"seg": {"type": "segmentation"}, "depth": {"type": "depth"}}, style="dusk"
    )


@pytest.fixture(scope="module")
def adapted(folder, base, dusk):
    """By method, the run; trained once."""
    runs = {}

    def run(method, *overrides):
        if (method, overrides) not in runs:
            out = folder / f"{method}{len(runs)}"
            runs[method, overrides] = pk.adapt(
                base, dusk, method, out=out, overrides=[*SHORT, *overrides], quiet=True
            ).path
        return runs[method, overrides]

    return run


def outputs(network):
    with torch.no_grad():
        return network(probe_images((32, 32))[1])


def same(got, expected):
    return set(got) == set(expected) and all(torch.equal(got[task], expected[task]) for task in expected)


METHODS = [pytest.param(m, marks=[] if m in FAST else pytest.mark.slow) for m in ADAPTATIONS]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_adapts_and_its_domain_is_put_together_again(method, adapted, base, folder):
    run = adapted(method)
    about = json.loads((run / "adaptation.json").read_text())
    assert about["method"] == method
    assert about["bits"]["rest"] > 0 and about["bits"]["base"] > 0
    if method in ("feature_extractor", "bn"):
        assert not any(about["layers_tuned"].values())
    if method == "feature_extractor":
        assert about["bits"]["trunk"] == 0
    before, after = (about["old_domain"][when] for when in ("before", "after"))
    assert set(before) == set(after) == {"seg", "room"}
    place = folder / f"domains_{method}"
    assert pk.add_domain(place, run, "one") == "one"
    made, _ = build.read(run / "artifact")
    again, manifest = read_domain(place, "one")
    assert same(outputs(again), outputs(made))
    assert list(manifest.tasks) == ["seg", "depth"]


def test_every_stage_is_written_down_from_the_base_to_the_file(adapted):
    run = adapted("taps")
    rows = json.loads((run / "stages.json").read_text())["rows"]
    assert [row["stage"] for row in rows] == ["base", "adapt", "fold", "emitted"]
    base, tuned, folded, emitted = rows
    assert set(base["val"]) == set(base["test"]) == {"seg"}  # depth is new
    assert not tuned["test"] and not folded["test"] and set(emitted["test"]) == {"seg", "depth"}
    assert folded["val"]["seg"]["miou"] == pytest.approx(tuned["val"]["seg"]["miou"], abs=1e-3)
    assert base["bits"] == folded["bits"] < tuned["bits"]
    about = json.loads((run / "adaptation.json").read_text())
    assert about["before"] == {split: base[split] for split in ("val", "test")}
    assert emitted["macs"] == pk.load(run).manifest.size["macs"]


@pytest.mark.slow
def test_a_recipe_exports_and_the_chain_ends_with_its_file(adapted, monkeypatch):
    run = adapted("taps", "export=[{format: onnx}]")
    chain = read_chain(run / "stages.json")
    *_, emitted = chain.rows
    (made,) = chain.exported
    assert (made.stage, made.kind, made.macs) == ("model.onnx", "onnx", emitted.macs)
    assert made.bits == 8 * (run / "exports/model.onnx").stat().st_size
    assert 0 <= made.off < 1e-4
    for task, metrics in emitted.val.items():
        assert made.val[task] == pytest.approx(metrics, rel=1e-3, abs=1e-3, nan_ok=True)
    (run / "exports/model.onnx").unlink()
    assert read_chain(run / "stages.json").exported == ()

    def lost(*_, **__):
        raise ExportError("it computes something else")

    monkeypatch.setattr(pk.api, "export", lost)
    with pytest.raises(
        ExportError, match="the run is finished and .* is written, but an export failed: it comp"
    ):
        pk.api._export_as_asked(run, ExportSpec(), False, say=print)


def test_a_task_of_the_base_keeps_its_blocks_and_a_new_one_the_union(base, adapted):
    old = Plan.from_json((base / "policy.json").read_text())
    new = Plan.from_json((adapted("taps") / "policy.json").read_text())
    assert new.row("seg") == old.row("seg")
    assert new.row("depth") == old.kept_by_any()


@pytest.mark.slow
def test_a_base_that_was_moved_is_found_by_its_digest(base, adapted, folder):
    run, place = folder / "elsewhere/taps", folder / "elsewhere/base"
    shutil.copytree(adapted("taps"), run)
    resolved = run / "resolved.yaml"
    specs = yaml.safe_load(resolved.read_text())
    assert specs["base"]["path"] == "../base"
    specs["recipe"]["start_from"] = str(folder / "gone")  # as if the base had been there
    specs["base"]["path"] = "../gone"
    resolved.write_text(yaml.safe_dump(specs))
    shutil.copytree(base, place)
    assert pk.add_domain(place, run, "one") == "one"  # its own run holds the base
    with pytest.raises(SpecError, match="base moved"):
        pk.add_domain(folder / "elsewhere/apart", run, "one")
    with pytest.raises(SpecError, match=r"base moved\? --set start_from=PATH"):
        (run / "artifact/manifest.json").unlink()
        pk.train(out=run, resume=True, quiet=True)
    assert pk.train(out=run, resume=True, overrides=[f"start_from={place}"], quiet=True).results["tasks"]
    specs["base"]["path"] = "../base"
    resolved.write_text(yaml.safe_dump(specs))
    assert pk.add_domain(folder / "elsewhere/apart", run, "one") == "one"  # both were moved together


def test_a_domain_never_changes_another_one_nor_the_base(base, adapted, dusk, folder, capsys):
    home = folder / "home"
    shutil.copytree(base / "artifact", home)
    of_base = outputs(pk.load(home).network)
    pk.add_domain(home, adapted("taps"), "first")
    of_first = outputs(read_domain(home, "first")[0])
    pk.add_domain(home, adapted("spottune"), "second")
    assert pk.domains(home) == ["first", "second"]
    assert same(outputs(pk.load(home).network), of_base)
    assert same(outputs(read_domain(home, "first")[0]), of_first)
    pk.remove_domain(home, "second")
    assert pk.domains(home) == ["first"]
    assert main(["domains", str(home)]) == 0
    trunk, said = home / "base.safetensors", capsys.readouterr()
    assert said.out == "first\n"
    assert f"{trunk}: {trunk.stat().st_size:,} bytes, the base's trunk as it was trained" in said.err
    assert "model.safetensors (" in said.err
    assert same(outputs(read_domain(home, "first")[0]), of_first)
    own = json.loads((adapted("taps") / "results.json").read_text())["tasks"]
    found = pk.evaluate(home, data=dusk, domain="first")
    assert found["seg"]["miou"] == pytest.approx(own["seg"]["metrics"]["miou"], abs=1e-3)
    with pytest.raises(SpecError, match="say which with --data"):
        pk.evaluate(home, domain="first")
    result = pk.load(home, domain="first").predict(next((base / "predictions").glob("*.png")))
    assert set(result.predictions) == {"seg", "depth"}
    pk.remove_domain(home, "first")
    assert not (home / "base.safetensors").exists() and not (home / "base.json").exists()
    assert same(outputs(pk.load(home).network), of_base)


def test_what_is_refused(base, adapted, dusk, folder):
    home = folder / "refusing"
    with pytest.raises(SpecError, match="no finished run of `perceptkit adapt`"):
        pk.add_domain(home, base, "x")
    for name in ("../x", "", ".x"):
        with pytest.raises(SpecError, match="no name for a domain"):
            pk.add_domain(home, adapted("taps"), name or " ")
    pk.add_domain(home, adapted("taps"))
    assert pk.domains(home) == ["dusk"]
    with pytest.raises(SpecError, match="already"):
        pk.add_domain(home, adapted("taps"))
    with pytest.raises(SpecError, match="no domain 'night'; it has dusk"):
        pk.load(home, domain="night")
    with pytest.raises(SpecError, match="was itself adapted"):
        pk.adapt(adapted("taps"), dusk, "bn", out=folder / "twice", overrides=SHORT, quiet=True)
    with pytest.raises(SpecError, match="no run to adapt"):
        pk.adapt(folder / "nowhere", dusk, "bn", out=folder / "twice", quiet=True)
    (home / "base.json").write_text('{"digest": "another"}')
    with pytest.raises(SpecError, match="another base"):
        pk.add_domain(home, adapted("taps"), "z")


def test_the_artifact_of_another_base_takes_no_domain(base, adapted, folder):
    other = folder / "other_base"
    shutil.copytree(base, other)
    best = other / "checkpoints/best.pt"
    state = torch.load(best, weights_only=True)
    next(v for k, v in state["supernet"].items() if k.startswith("backbone.")).add_(1)
    torch.save(state, best)
    before = sorted((other / "artifact").iterdir())
    for place in (other, adapted("taps")):
        with pytest.raises(SpecError, match=f"was adapted from {base}, not from {place}: add it there"):
            pk.add_domain(place, adapted("taps"))
    assert sorted((other / "artifact").iterdir()) == before


def test_a_damaged_domain_is_not_run(adapted, folder):
    home = folder / "damaged"
    pk.add_domain(home, adapted("taps"), "x")
    about, delta = home / "domains/x/domain.json", home / "domains/x/delta.safetensors"
    text = about.read_text()
    about.write_text(text.replace('"format": 1', '"format": 2'))
    with pytest.raises(ExportError, match="format 2; this version reads 1"):
        pk.load(home, domain="x")
    about.write_text(text)
    delta.write_bytes(delta.read_bytes()[:-8])
    with pytest.raises(ExportError, match="is damaged"):
        pk.load(home, domain="x")


@pytest.mark.slow
def test_spottune_says_what_it_chose(adapted):
    about = json.loads((adapted("spottune") / "adaptation.json").read_text())
    copies = about["copies"]
    assert set(copies["ablations"]) == {"always_base", "always_tuned"}
    assert len(copies["seen"]["keep_rate"]) == len(copies["blocks"])
    assert 0 <= copies["seen"]["kept_fraction"] <= 1
    page = pk.report(adapted("spottune")).read_text()
    assert "What was adapted" in page and "Images that chose differently" in page


@pytest.mark.slow
def test_global_leaves_k_tuned_blocks_and_no_router(adapted):
    run = adapted("spottune_global", "adaptation.k=2")
    assert pk.load(run).manifest.router is None
    about = json.loads((run / "domain/domain.json").read_text())
    assert len(about["tuned"]) == 2
    seen = json.loads((run / "adaptation.json").read_text())["copies"]["seen"]
    assert seen["unique"] == 1 and sorted(seen["keep_rate"])[-2:] == [1, 1]  # fixed before training ended
    assert "settled: " in (run / "log.txt").read_text()
    assert (
        sum(part > 0 for part in json.loads((run / "adaptation.json").read_text())["layers_tuned"].values())
        == 2
    )


@pytest.mark.slow
@pytest.mark.parametrize("tuned", ["parallel_adapter", "lora", "bn"])
def test_other_kinds_of_tuned_copies(tuned, adapted, folder):
    run = adapted("spottune", f"adaptation.tuned={tuned}")
    bits = json.loads((run / "adaptation.json").read_text())["bits"]
    assert bits["trunk"] < 0.7 * bits["base"]
    pk.add_domain(folder / f"kind_{tuned}", run, "x")


@pytest.mark.slow
def test_killed_and_resumed(base, dusk, folder, adapted):
    whole = adapted("spottune", "stages.adapt.epochs=2")
    out = folder / "resumed"
    shutil.copytree(whole, out)
    for name in ("artifact", "domain"):
        shutil.rmtree(out / name)
    run = pk.train(out=out, resume=True, quiet=True).path
    assert same(outputs(build.read(run / "artifact")[0]), outputs(build.read(whole / "artifact")[0]))


@pytest.mark.slow
def test_auto_tries_and_tells(base, dusk, folder, capsys):
    command = [
        "adapt",
        str(base),
        str(dusk),
        "--method",
        "auto",
        "--out",
        str(folder / "auto"),
        "--set",
        *SHORT,
    ]
    assert main(command) == 0
    told = capsys.readouterr().err
    assert "chosen: " in told
    record = json.loads((folder / "auto.auto.json").read_text())
    rates = {
        m: [row["lr"] for row in record["rows"] if row["method"] == m] for m in ("bn", "finetune", "taps")
    }
    assert rates == {"bn": [1e-3, pytest.approx(1e-2)], "finetune": [1e-3], "taps": [1e-3]}
    (stage,) = yaml.safe_load((folder / "auto/resolved.yaml").read_text())["recipe"]["stages"]
    assert stage["lr"] == record["lr"]
    assert json.loads((folder / "auto/adaptation.json").read_text())["method"] == record["chosen"]


def test_the_verbs(base, dusk, folder, capsys):
    assert main(["adapt", str(base), str(dusk), "--method", "bn", "--dry-run", "--set", *SHORT]) == 0
    assert main(["domains", str(folder / "none")]) == 0
    assert "no domains" in capsys.readouterr().out
    assert main(["domains", str(folder / "none"), "--remove", "x"]) == 2
    assert main(["domains", str(folder / "none"), "--name", "x"]) == 2
    assert main(["adapt", str(base), str(dusk), "--method", "spotune"]) == 2
    assert "did you mean 'spottune'" in capsys.readouterr().err


CHAIN = [*SHORT, "stages.finetune.epochs=1", "routing.compare_epochs=0", "routing.gamma=0.1"]


@pytest.mark.slow
def test_the_whole_chain(base, dusk, folder):
    """AdaShare, SpotTune, fold, BlockDrop, dynamic ONNX; killed after the first stage and resumed."""
    run = pk.adapt(base, dusk, recipe="adapt_and_route", out=folder / "chain", overrides=CHAIN, quiet=True)
    about = json.loads((run.path / "adaptation.json").read_text())
    assert about["method"] == "spottune" and about["copies"]["static"]
    plan = Plan.from_json((run.path / "policy.json").read_text())
    assert not plan.dual
    old = Plan.from_json((base / "policy.json").read_text())
    assert set(plan.kept_by_any()) <= {True, False}
    assert all(kept <= before for kept, before in zip(plan.kept_by_any(), old.kept_by_any(), strict=True))
    assert (run.path / "routing.json").is_file() and not (run.path / "domain").exists()
    file = run.path / "exports" / ("model_branch.onnx" if plan.routed() else "model.onnx")
    table = chain_table(read_chain(run.path / "stages.json"))
    shown = {row.label: row.cells[-1].text for row in table.rows}
    assert table.columns[-1].title == file.name and table.columns[-2].title == "emitted"
    assert float(shown["miou, val"]) == pytest.approx(float(table.rows[1].cells[-2].text), abs=2e-3)
    assert float(shown["off the artifact"]) < 1e-4
    stages = {row["stage"]: row for row in json.loads((run.path / "stages.json").read_text())["rows"]}
    assert [*stages] == ["base", "adapt", "fold", "finetune", "emitted"]
    assert set(stages["base"]["val"]) == set(stages["base"]["test"]) == {"seg"}
    assert stages["base"]["bits"] < stages["adapt"]["bits"] > stages["fold"]["bits"]
    assert stages["emitted"]["test"]["seg"]["miou"] == run.results["tasks"]["seg"]["metrics"]["miou"]
    assert stages["emitted"]["bits"] == 8 * (run.path / "artifact/model.safetensors").stat().st_size
    assert "What every stage did" in pk.summary([run.path])
    with pytest.raises(SpecError, match="no finished run"):
        pk.add_domain(folder / "chained", run.path, "x")
    torch.testing.assert_close(
        outputs(resumed_after_adapting(run.path, folder / "chain_again")),
        outputs(build.read(run.path / "artifact")[0]),
    )


def resumed_after_adapting(run, out):
    """The run again from its end, its artifact gone: its network is the folded one, not the one that was adapted."""
    shutil.copytree(run, out)
    shutil.rmtree(out / "artifact")
    return build.read(pk.train(out=out, resume=True, quiet=True).path / "artifact")[0]


@pytest.mark.slow
def test_the_chain_killed_while_it_learns_to_skip_ends_with_the_same_bits(base, dusk, folder, monkeypatch):
    from perceptkit.train import loop
    from perceptkit.train.training import Interrupted

    def adapt(out):
        return pk.adapt(base, dusk, recipe="adapt_and_route", out=out, overrides=CHAIN, quiet=True).path

    whole = adapt(folder / "whole_chain")
    step, steps = loop.finetune_step, []

    def stopping(training, *rest):
        steps.append(training)
        training.stop_requested = len(steps) == 3
        return step(training, *rest)

    monkeypatch.setattr(loop, "finetune_step", stopping)
    with pytest.raises(Interrupted):
        adapt(folder / "cut_chain")
    monkeypatch.undo()
    cut = pk.train(out=folder / "cut_chain", resume=True, quiet=True).path
    assert same(outputs(build.read(cut / "artifact")[0]), outputs(build.read(whole / "artifact")[0]))
    assert (cut / "policy.json").read_text() == (whole / "policy.json").read_text()


def test_scratch_takes_nothing_of_the_base(base, dusk):
    from perceptkit.spec.load import load_both
    from perceptkit.tasks.table import build_tasks
    from perceptkit.train.adapting import begin_adaptation
    from perceptkit.train.session import make_supernet
    from perceptkit.train.start_from import base_of

    changes = [f"start_from={base}", "adaptation={method: scratch}", "heads.channels=16"]
    changes += ["backbone={name: test_resnet, weights: none}", "sharing.method=adashare"]
    tasks, recipe = load_both(dusk, "adapt", changes)
    net = make_supernet(recipe.spec, build_tasks(tasks.spec), tasks.spec.data.size)
    begin_adaptation(recipe.spec, net, normalised=False)
    old = base_of(base, recipe.spec)[0].state_dict()
    for name, value in net.named_parameters():
        if value.ndim > 1:
            assert name not in old or not torch.equal(value, old[name]), name


def test_a_base_that_is_not_finished_is_refused_before_anything_is_trained(base, dusk, folder):
    half = folder / "half"
    shutil.copytree(base, half)
    (half / "results.json").unlink()
    for method in ("bn", "auto"):
        with pytest.raises(SpecError, match="results.json|not finished"):
            pk.adapt(half, dusk, method, out=folder / "never", overrides=SHORT, quiet=True)


@pytest.mark.slow
def test_the_recipe_keeps_its_keys_of_the_method_that_is_named(base, dusk, folder):
    recipe = folder / "lora.yaml"
    text = (Path(__file__).parents[2] / "recipes/adapt.yaml").read_text()
    recipe.write_text(text.replace("{method: spottune}", "{method: spottune, tuned: lora, rank: 2}"))
    run = pk.adapt(
        base, dusk, "spottune", recipe=recipe, out=folder / "lora_run", overrides=SHORT, quiet=True
    )
    assert json.loads((run.path / "adaptation.json").read_text())["spec"]["rank"] == 2


def test_a_first_domain_that_differs_from_its_run_leaves_nothing(adapted, folder):
    run, home = folder / "changed", folder / "nothing"
    shutil.copytree(adapted("taps"), run)
    delta = run / "domain/delta.safetensors"
    stored = load_file(delta)
    save_file(
        {name: value + 1 if value.is_floating_point() else value for name, value in stored.items()}, delta
    )
    with pytest.raises(ExportError):
        pk.add_domain(home, run, "x")
    assert pk.domains(home) == [] and not (home / "base.safetensors").exists()
