"""Settings that must stand before torch and albumentations are imported, however pytest was started."""

import gc
import os
from collections.abc import Generator

import pytest

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it calls home otherwise
os.environ.setdefault("HF_HUB_OFFLINE", "1")
if "PYTEST_XDIST_WORKER" in os.environ:  # two workers on two cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GOMP_SPINCOUNT", "0")  # spinning threads make two slower than one on shared machines


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is imported here stays to the end: looking for garbage in it takes seconds, here and in every test."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()
