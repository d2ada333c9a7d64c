"""The strategies by the name of their method."""

from perceptkit.baselines.adaptation.bn import Bn
from perceptkit.baselines.adaptation.dan import Dan
from perceptkit.baselines.adaptation.feature_extractor import FeatureExtractor
from perceptkit.baselines.adaptation.finetune import Finetune
from perceptkit.baselines.adaptation.l2sp import L2sp
from perceptkit.baselines.adaptation.last_k import LastK
from perceptkit.baselines.adaptation.lwf import Lwf
from perceptkit.baselines.adaptation.parallel_adapter import ParallelAdapter
from perceptkit.baselines.adaptation.piggyback import Piggyback
from perceptkit.baselines.adaptation.scratch import Scratch
from perceptkit.baselines.adaptation.series_adapter import SeriesAdapter
from perceptkit.baselines.adaptation.taps import Taps
from perceptkit.model.strategy import Origin, Strategy
from perceptkit.spec.adaptation import AdaptationSpec

STRATEGIES: dict[str, type] = {
    "scratch": Scratch,
    "feature_extractor": FeatureExtractor,
    "finetune": Finetune,
    "last_k": LastK,
    "bn": Bn,
    "lwf": Lwf,
    "series_adapter": SeriesAdapter,
    "parallel_adapter": ParallelAdapter,
    "piggyback": Piggyback,
    "dan": Dan,
    "l2sp": L2sp,
    "taps": Taps,
}


def build_strategy(spec: AdaptationSpec, origin: Origin | None = None) -> Strategy:
    """The strategy that the recipe's section `adaptation` asks for.

    Args:
        spec: the section.
        origin: of the domain's network; `scratch` needs its `fresh`, `lwf` its `net` and `plan`.
    """
    strategy: Strategy = STRATEGIES[spec.method](spec)
    strategy.origin = origin or Origin()
    return strategy
