"""Fine-tuning: all weights start from the base's and are trained.

Yosinski, Clune, Bengio, Lipson. *How transferable are features in deep neural networks?* NIPS 2014.
https://arxiv.org/abs/1411.1792

    w starts at w0

Nothing is fixed, everything learns; a domain stores all weights; there is nothing to fold.
"""

from perceptkit.model.strategy import Strategy


class Finetune(Strategy):
    """See the module's docstring: what a strategy does unless it says otherwise."""
