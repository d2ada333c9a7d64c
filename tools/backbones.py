"""Writes docs/backbones.md: which backbones can be gated, and what of them was checked.

python tools/backbones.py                                        every model, every column: hours
python tools/backbones.py --models resnet18 'swin*' --columns blocks equal skip
python tools/backbones.py --columns compile --backend inductor --models resnet18
python tools/backbones.py --columns none                         the page again, from docs/backbones.json

What was measured is kept in docs/backbones.json, and runs are merged into it. Each model is checked in a process of
its own, which is stopped after --timeout seconds a column: a crash costs one cell, and the cell says so.
"""

import argparse
import fnmatch
import json
import os
import selectors
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]
COLUMNS = ("blocks", "equal", "skip", "copies", "export", "sizes", "onnx", "compile")
SHOWN = ("identity", "shortcut", "share", "strides", "channels", "equal", "maps", *COLUMNS[2:])
SMALL = (64, 64)
"""Pixels at which all columns but `blocks` are checked, where the model takes them."""
MODELS = {
    "ResNet": ["resnet18", "resnet50"],
    "CIFAR ResNet": ["cifar10_resnet20"],
    "Decathlon ResNet": ["decathlon_resnet26"],
    "ResNeXt": ["resnext50_32x4d"],
    "SE-ResNet": ["seresnet18"],
    "ECA-ResNet": ["ecaresnet26t"],
    "ResNetV2": ["resnetv2_50"],
    "RegNetX": ["regnetx_002"],
    "RegNetY": ["regnety_002"],
    "Res2Net": ["res2net50_14w_8s"],
    "SKNet": ["skresnet18"],
    "ConvNeXt": ["convnext_atto"],
    "ConvNeXt v2": ["convnextv2_atto"],
    "EfficientNet": ["efficientnet_b0"],
    "EfficientNet v2": ["efficientnetv2_rw_t"],
    "EfficientNet lite": ["tf_efficientnet_lite0"],
    "MobileNet v2": ["mobilenetv2_050"],
    "MobileNet v3": ["mobilenetv3_small_050"],
    "MobileNet v4": ["mobilenetv4_conv_small_035", "mobilenetv4_hybrid_medium_075"],
    "MNASNet": ["mnasnet_small"],
    "FBNet": ["fbnetc_100"],
    "GhostNet": ["ghostnet_050", "ghostnetv2_100"],
    "ViT": ["vit_tiny_patch16_224"],
    "DeiT": ["deit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"],
    "DeiT3": ["deit3_small_patch16_224"],
    "DINOv2": ["vit_small_patch14_dinov2"],
    "DINOv3": ["vit_small_patch16_dinov3"],
    "EVA": ["eva02_tiny_patch14_224"],
    "ViT, mixed rotary": ["vit_small_patch16_rope_mixed_224"],
    "ViT, relative positions": ["vit_relpos_small_patch16_224"],
    "BEiT": ["beit_base_patch16_224"],
    "BEiT v2": ["beitv2_base_patch16_224"],
    "Swin": ["swin_tiny_patch4_window7_224"],
    "Swin v2": ["swinv2_tiny_window8_256"],
    "PVT v2": ["pvt_v2_b0"],
    "PoolFormer": ["poolformer_s12", "poolformerv2_s12"],
    "CAFormer": ["caformer_s18"],
    "Hiera": ["hiera_tiny_224"],
    "MaxViT": ["maxvit_pico_rw_256", "maxvit_tiny_tf_224"],
    "CoAtNet": ["coatnet_pico_rw_224"],
    "EdgeNeXt": ["edgenext_xx_small"],
    "EfficientFormer": ["efficientformer_l1"],
    "EfficientFormer v2": ["efficientformerv2_s0"],
    "RepVGG": ["repvgg_a0"],
    "RepViT": ["repvit_m0_9"],
    "MobileOne": ["mobileone_s0"],
    "VGG": ["vgg11"],
    "DenseNet": ["densenet121"],
    "Inception": ["inception_v3", "inception_v4", "inception_resnet_v2"],
    "RexNet": ["rexnet_100"],
    "LCNet": ["lcnet_050"],
    "DPN": ["dpn68"],
    "ResNeSt": ["resnest14d"],
    "NFNet": ["nf_resnet50", "eca_nfnet_l0", "test_nfnet"],
    "ResNet of blocks by name": ["gernet_s", "regnetz_b16"],
    "attention in a ResNet": ["halonet_h1", "bat_resnext26ts"],
    "RegNetV, Z": ["regnetv_040", "regnetz_005"],
    "SENet": ["legacy_seresnet18"],
    "TResNet": ["tresnet_m"],
    "CSPNet": ["cs3darknet_focus_s"],
    "CSPNeXt": ["cspnext_tiny"],
    "DLA": ["dla46x_c"],
    "HRNet": ["hrnet_w18_small"],
    "SelecSLS": ["selecsls42"],
    "VoVNet": ["ese_vovnet19b_slim_dw"],
    "Xception": ["legacy_xception", "xception41"],
    "NASNet": ["nasnetalarge", "pnasnet5large"],
    "RDNet": ["rdnet_tiny"],
    "HGNet v2": ["hgnetv2_b0"],
    "LCNet v2": ["lcnetv2_small"],
    "GhostNet v3": ["ghostnetv3_050"],
    "RepGhost": ["repghostnet_050"],
    "HardCoRe-NAS": ["hardcorenas_a"],
    "MobileNet v5": ["mobilenetv5_base"],
    "FasterNet": ["fasternet_t0"],
    "StarNet": ["starnet_s050"],
    "InceptionNeXt": ["inception_next_atto"],
    "MambaOut": ["mambaout_femto"],
    "ConvMixer": ["convmixer_768_32"],
    "MLP-Mixer, gMLP, ResMLP": ["mixer_s32_224", "gmlp_ti16_224", "resmlp_12_224"],
    "Sequencer": ["sequencer2d_s"],
    "CSATv2": ["csatv2"],
    "CPUBone": ["cpubone_nano"],
    "LowFormer": ["lowformer_b0"],
    "iFormer": ["iformer_t"],
    "EfficientViT (MIT)": ["efficientvit_b0"],
    "EfficientViT (MSRA)": ["efficientvit_m0"],
    "EfficientViM": ["efficientvim_m1"],
    "SHViT": ["shvit_s1"],
    "SwiftFormer": ["swiftformer_xs"],
    "FastViT": ["fastvit_t8"],
    "MobileViT": ["mobilevit_xxs", "mobilevitv2_050"],
    "TinyViT": ["tiny_vit_5m_224"],
    "LeViT": ["levit_128s"],
    "Swin v2, CR": ["swinv2_cr_tiny_224"],
    "MViT v2": ["mvitv2_tiny"],
    "SAM": ["samvit_base_patch16_224"],
    "SAM 2": ["hieradet_small", "sam2_hiera_tiny"],
    "NaFlexViT": ["naflexvit_base_patch16_gap"],
    "CaiT": ["cait_xxs24_224"],
    "XCiT": ["xcit_nano_12_p16_224"],
    "ConViT": ["convit_tiny"],
    "ViT on a ResNet": ["vit_tiny_r_s16_p8_224"],
    "ViTamin": ["vitamin_small_224"],
    "DaViT": ["davit_tiny"],
    "FocalNet": ["focalnet_tiny_srf"],
    "GCViT": ["gcvit_xxtiny"],
    "Next-ViT": ["nextvit_small"],
    "PiT": ["pit_ti_224"],
    "Twins": ["twins_svt_small"],
    "CoaT": ["coat_lite_tiny"],
    "CrossViT": ["crossvit_9_240"],
    "NesT": ["nest_tiny"],
    "VOLO": ["volo_d1_224"],
    "TNT": ["tnt_s_patch16_224"],
    "Visformer": ["visformer_tiny"],
    "Qwen3 ViT": ["qwen3_vit_88m"],
    "Gemma 4 ViT": ["gemma4_vit_167m"],
    "DeepSeek ViT": ["deepseek_vit_412m"],
}


def main() -> int:
    """Exit code 0 when the page could be written, whatever it says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=["*"], metavar="PATTERN", help="of names in the table")
    parser.add_argument("--columns", nargs="+", choices=(*COLUMNS, "none"), default=list(COLUMNS))
    parser.add_argument("--backend", default="aot_eager", help="of torch.compile")
    parser.add_argument("--timeout", type=float, default=600, help="seconds for one cell")
    parser.add_argument("--missing", action="store_true", help="only cells that were never measured")
    parser.add_argument("--docs", type=Path, default=REPOSITORY / "docs")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    columns = [column for column in COLUMNS if column in options.columns]
    if options.worker:
        work(options.worker, columns, options.backend)
        return 0
    store = options.docs / "backbones.json"
    options.docs.mkdir(parents=True, exist_ok=True)
    for name in (name for names in MODELS.values() for name in names):
        if not any(fnmatch.fnmatch(name, pattern) for pattern in options.models):
            continue
        found = read(store)
        wanted = [c for c in columns if not (options.missing and c in found.get(name, {}))]
        for column, cell in check(name, wanted, options.backend, options.timeout):
            found = read(store)  # another run may have written meanwhile
            found.setdefault(name, {})[column] = cell
            write(store, json.dumps(found, indent=1, sort_keys=True) + "\n")
            print(f"{name:34} {column:8} {json.dumps(cell)}", flush=True)
    write(options.docs / "backbones.md", page(read(store)))
    print(options.docs / "backbones.md")
    return 0


def check(name: str, columns: Sequence[str], backend: str, timeout: float) -> Iterator[tuple[str, Any]]:
    """(column, cell) as they are measured; the process is started again after a crash or a time-out."""
    left = list(columns)
    while left:
        command = [sys.executable, __file__, "--worker", name, "--backend", backend, "--columns", *left]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, bufsize=1
        )
        assert process.stdout is not None
        with process, selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while left:
                ready = selector.select(timeout)
                line = process.stdout.readline() if ready else ""
                if not line:
                    if not ready:
                        process.kill()
                    code = process.wait()
                    reason = f"ended with {code}" if ready else f"not done in {timeout:.0f} s"
                    yield left.pop(0), {"ok": False, "found": reason}
                    break
                column, cell = json.loads(line)
                left.remove(column)
                yield column, cell
                if cell.get("refused"):
                    left.clear()  # there is nothing more to check


def work(name: str, columns: Sequence[str], backend: str) -> None:
    """In the process of one model: a line of JSON for each column."""
    warnings.simplefilter("ignore")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import backbone_checks as checks
    import torch

    from perceptkit.errors import SpecError
    from perceptkit.model.weights import own_size

    torch.set_num_threads(1)
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # exporters print on stdout

    def say(column: str, ok: bool, found: Any, began: float, **more: Any) -> None:
        cell = {"ok": ok, "found": found, "seconds": round(time.perf_counter() - began, 1), **more}
        out.write(json.dumps([column, cell]) + "\n")

    own = own_size(name)
    made: dict[tuple[int, int], Any] = {}
    refused: SpecError | None = None
    for column in columns:
        began = time.perf_counter()
        for size in [own] if column == "blocks" else [SMALL, own]:
            try:
                if size not in made:
                    made[size] = checks.networks(name, size)
                break
            except SpecError as error:
                refused = error
        else:
            assert refused is not None
            say(column, False, str(refused), began, refused=True)
            continue
        net, reference = made[size]
        more = {"backend": backend} if column == "compile" else {}
        try:
            found = checks.CHECKS[column](net, reference, checks.picture(size), **more)
            say(column, True, found, began, size=list(size))
        except Exception as error:  # whatever it is, it belongs into the table
            reason: BaseException = error
            while reason.__cause__ is not None:  # exporters say the reason last
                reason = reason.__cause__
            text = (str(reason).strip() or type(reason).__name__).splitlines()[0][:200]
            kind = "" if isinstance(reason, checks.Failed) else f"{type(reason).__name__}: "
            say(column, False, kind + text, began, size=list(size))


def page(found: dict[str, Any]) -> str:
    """The whole of docs/backbones.md."""
    gated, refused, notes, waiting = [], [], [], []
    for family, names in MODELS.items():
        for name in names:
            cells = found.get(name, {})
            facts = cells.get("blocks")
            if not facts:
                waiting.append(f"`{name}`")
            elif facts.get("refused"):
                refused.append(f"| {family} | `{name}` | {facts['found']} |")
            else:
                gated.append(f"| {family} | `{name}` | {' | '.join(row(cells))} |")
                notes += [
                    f"* `{name}`, {column}: {cell['found']}"
                    for column, cell in sorted(cells.items())
                    if not cell["ok"]
                ]
    return PAGE.format(
        columns=" | ".join(SHOWN),
        gated="\n".join(["|---|---|---:|---:|---:|" + "---|" * (len(SHOWN) - 3), *gated]),
        refused="\n".join(refused),
        notes="\n".join(notes) or "None.",
        waiting=", ".join(waiting) or "None.",
        bound=1e-4,
    )


PAGE = """# Backbones

Written by `python tools/backbones.py` from measurements, at least one model of every architecture file of timm;
failures are shown with their reason. `perceptkit list backbones --gateable 'PATTERN'` gives the same facts for any
model.

* **identity, shortcut**: blocks that can be skipped to their input, and stage transitions that can be skipped to
  their projection. **share**: of the backbone's MACs at the model's own input size, what skipping all of them saves.
* **equal**: with all blocks kept the features are those of timm's `forward_features`, bit by bit, in eval mode.
  **maps**: how many of the maps of stride 4 and more that timm's `forward_intermediates` gives are, bit by bit, outputs
  of the steps; fewer than all is a failure.
* **skip**: each block skipped on its own gives, bit by bit, what timm's own model without that block gives.
* **copies**: state-dict keys are timm's; a deep copy, a pickle and a saved state dict compute the same bits.
* **export, onnx, compile**: two tasks, one dense and one global, of different plans, through `torch.export` with a
  dynamic batch, through onnxruntime (attention written out), and through `torch.compile` of the whole graph with the
  backend that is named. The figure is the largest difference to the eager network, of the output's own scale; above
  {bound:.0e} it is a failure.

* **sizes**: heights and widths that an ONNX file of it takes: any multiple of a number, or its own alone.

Weights are random, also those that timm initialises to zero. `-` was not measured.

| family | model | {columns} |
{gated}

## Failures

{notes}

## Refused

| family | model | reason |
|---|---|---|
{refused}

## Not measured

{waiting}
"""


def row(cells: dict[str, Any]) -> list[str]:
    """One line of the table, from `identity` on."""
    facts = cells["blocks"]
    texts = ["-"] * 5
    if facts["ok"]:
        of = facts["found"]
        lists = [" ".join(map(str, of[key])) for key in ("strides", "channels")]
        texts = [str(of["identity"]), str(of["shortcut"]), f"{of['share']:.2f}", *lists]
    equal = cells.get("equal")
    maps = "-"
    if equal and equal["ok"]:
        maps = equal["found"].split(", ")[1].split(" maps")[0].replace(" of ", "/")
    texts += [mark(equal, "yes"), maps, mark(cells.get("skip"), "yes"), mark(cells.get("copies"), "yes")]
    return texts + [mark(cells.get(column)) for column in ("export", "sizes", "onnx", "compile")]


def mark(cell: dict[str, Any] | None, good: str | None = None) -> str:
    """What a cell of the table shows."""
    if cell is None:
        return "-"
    return (good or cell["found"]) if cell["ok"] else "**no**"


def read(store: Path) -> dict[str, Any]:
    """What was measured so far."""
    return json.loads(store.read_text(encoding="utf-8")) if store.is_file() else {}


def write(path: Path, text: str) -> None:
    """Whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


if __name__ == "__main__":
    sys.exit(main())
