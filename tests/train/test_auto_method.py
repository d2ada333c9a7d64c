"""The sections that `--method auto` tries: keys that are given reach the methods that read them."""

import pytest

from perceptkit.errors import SpecError
from perceptkit.spec.adaptation import LastK, Spottune, Taps
from perceptkit.spec.overrides import keys_of_section
from perceptkit.train.auto_method import CANDIDATES, candidates, choose


def test_a_key_goes_to_the_methods_that_read_it():
    found = candidates({"k": 2, "threshold": 0.2})
    assert list(found) == list(CANDIDATES)
    assert (found["last_k"].k, found["taps"].threshold) == (2, 0.2)
    assert found["finetune"].model_dump() == {"method": "finetune"}


def test_keys_of_the_recipe_stay_where_its_method_is_tried():
    found = candidates({"warmup": 0.5}, Taps(method="taps", sparsity=3.0))
    assert (found["taps"].sparsity, found["taps"].warmup) == (3.0, 0.5)
    assert found["last_k"] == LastK(method="last_k")
    assert candidates({}, Spottune(method="spottune", tau=1.0)) == candidates({})


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (
            {"tau": 1.0},
            r"adaptation.tau: no method that --method auto tries reads it \(last_k: k; taps: sparsity",
        ),
        ({"k": 0}, "adaptation.k, of last_k: Input should be greater than 0"),
        ({"router.keep": 0.5}, "adaptation.router.keep: no method"),
    ],
)
def test_what_no_method_reads_is_refused(keys, said):
    with pytest.raises(SpecError, match=said):
        candidates(keys)


def test_keys_of_a_section_by_hand():
    keys, others = keys_of_section(
        ["adaptation.k=2", "optim.lr=1e-3", "adaptation.threshold=1e-1"], "adaptation"
    )
    assert keys == {"k": 2, "threshold": 0.1} and others == ["optim.lr=1e-3"]
    with pytest.raises(SpecError, match="only single keys of adaptation"):
        keys_of_section(["adaptation={method: taps}"], "adaptation")
    with pytest.raises(SpecError, match="not YAML"):
        keys_of_section(["adaptation.k=[1"], "adaptation")


def test_of_scores_that_are_close_the_smallest_is_chosen():
    rows = [
        {"score": 0.5, "trunk_bits": 9},
        {"score": 0.496, "trunk_bits": 1},
        {"score": 0.49, "trunk_bits": 0},
    ]
    assert choose(rows) is rows[1]
