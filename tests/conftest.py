"""Settings that must stand before torch and albumentations are imported, however pytest was started."""

import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it calls home otherwise
os.environ.setdefault("HF_HUB_OFFLINE", "1")
if "PYTEST_XDIST_WORKER" in os.environ:  # two workers on two cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GOMP_SPINCOUNT", "0")  # spinning threads make two slower than one on shared machines
