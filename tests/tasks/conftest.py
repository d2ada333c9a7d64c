"""Shared by the tests of task types."""

import pytest
import torch


@pytest.fixture
def rng() -> torch.Generator:
    """A seeded generator."""
    return torch.Generator().manual_seed(0)
