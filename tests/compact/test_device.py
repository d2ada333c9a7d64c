"""Devices by name: what is none, and what is not here."""

import pytest
import torch

from perceptkit.compact.device import find_device
from perceptkit.errors import SpecError


def test_what_there_is():
    assert find_device("cpu") == torch.device("cpu")
    assert find_device(None).type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_no_device():
    with pytest.raises(SpecError, match="'gpu' is not a device; cpu, cuda and cuda:1 are"):
        find_device("gpu")


def test_one_that_is_not_here():
    with pytest.raises(SpecError, match="device cuda:99 cannot be used here: "):
        find_device("cuda:99")
