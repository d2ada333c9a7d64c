"""tools/regularisers.py: its numbers by hand, and docs/data.md has them."""

import math
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))  # scripts, not a package

import regularisers

REPOSITORY = Path(__file__).parents[2]

# -log(1 - a) = log(1 + e^d) and log a = -log(1 + e^-d) with d = keep - skip; d of three tasks: 2 0 / -1 -2.5 / -5 4
THREE = [[2, 0], [-1, -2.5], [-5, 4]]
CODE_SPARSITY = sum(math.log1p(math.exp(d)) / 2 for row in THREE for d in row)
PAPER_SPARSITY = -sum(math.log1p(math.exp(-d)) for row in THREE for d in row)
# of the third task a = 0.0067 in block 1: perceptkit's is not pushed below 0.02
BOUNDED = PAPER_SPARSITY + math.log1p(math.exp(5)) + math.log(0.02)
# weight 1/2 in block 1 and 0 in block 2; every pair twice
A_BLOCK_1 = [1 / (1 + math.exp(-d)) for d, _ in THREE]
PAPER_SHARING = (
    2 * 0.5 * 2 * (max(A_BLOCK_1) - min(A_BLOCK_1))
)  # of three numbers, the gaps sum to twice the range
# keep logits of block 1 and 2: log .9 - log .5 and log .2 - log .6, with weights 1/2 and 1
CODE_SHARING = 0.5 * math.log(0.9 / 0.5) + math.log(0.6 / 0.2)


def test_by_hand():
    expected = [
        (
            "sparsity",
            [math.log(0.9 * 0.2 * 0.5 * 0.6), 2.067583],
        ),  # of the code: tests/policies/test_adashare.py
        ("sparsity", [PAPER_SPARSITY, CODE_SPARSITY, BOUNDED, CODE_SPARSITY]),
        ("sparsity", [PAPER_SPARSITY, CODE_SPARSITY, BOUNDED, CODE_SPARSITY]),  # probabilities are the same
        ("sharing", [0.4, CODE_SHARING]),
        ("sharing", [PAPER_SHARING, 10.0]),
        ("sharing", [PAPER_SHARING, 11.0]),  # the code reads raw logits
    ]
    for (loss, words, found), (name, numbers) in zip(regularisers.table(), expected, strict=True):
        assert loss == name
        assert found == pytest.approx((numbers * 2)[:4], abs=2e-6), words


def test_the_docs_have_this_table():
    docs = (REPOSITORY / "docs/data.md").read_text(encoding="utf-8")
    assert regularisers.as_markdown() in docs
