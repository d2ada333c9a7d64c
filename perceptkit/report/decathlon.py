"""The score of the Visual Decathlon Challenge.

Rebuffi, Bilen, Vedaldi. *Learning multiple visual domains with residual adapters.* NeurIPS 2017, section 4.
https://arxiv.org/abs/1705.08045

    S = sum over domains of  alpha_d max(0, Emax_d - E_d)^2        alpha_d = 1000 / Emax_d^2        Emax_d = 2 B_d

E_d is the test error, B_d that of a network fully fine-tuned on the domain: the baseline gets 250 points in every
domain, a perfect classifier 1000, and one with twice the baseline's error or more nothing.

Read it with care: where the baseline is nearly perfect, little is much. A tenth of a point of accuracy is worth 37
points on GTSRB and 1.2 on DTD. So the mean accuracy belongs beside it.
"""

from collections.abc import Mapping

from perceptkit.errors import SpecError

BASELINE = {
    "aircraft": 0.6034,
    "cifar100": 0.8212,
    "daimlerpedcls": 0.9282,
    "dtd": 0.5553,
    "gtsrb": 0.9753,
    "imagenet12": 0.5987,
    "omniglot": 0.8769,
    "svhn": 0.9655,
    "ucf101": 0.5120,
    "vgg-flowers": 0.8141,
}
"""Test accuracy of the challenge's fully fine-tuned ResNets, by domain in the order of its ids."""


def decathlon_score(accuracy: Mapping[str, float], baseline: Mapping[str, float] | None = None) -> float:
    """The score S over the domains given: 0 to 1000 for each, 250 for what is as good as the baseline.

    Args:
        accuracy: by domain, on the test split, in [0, 1]. Over all ten domains it is the challenge's score.
        baseline: accuracy of full fine-tuning by domain, for domains of one's own; the challenge's by default.

    Raises:
        SpecError: a domain has no baseline, or a perfect one; an accuracy is not in [0, 1].
    """
    baseline = BASELINE if baseline is None else baseline
    score = 0.0
    for domain, value in accuracy.items():
        if domain not in baseline:
            raise SpecError(f"domain {domain!r} has no baseline; there are {', '.join(baseline)}")
        for one in (value, baseline[domain]):
            if not 0 <= one <= 1:
                raise SpecError(f"domain {domain!r}: an accuracy is in [0, 1], not {one:g}")
        most = 2 * (1 - baseline[domain])
        if most == 0:
            raise SpecError(f"domain {domain!r}: nothing can be measured against a baseline without errors")
        score += 1000 * max(0.0, 1 - (1 - value) / most) ** 2
    return score
