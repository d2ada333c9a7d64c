"""Stages as data, one visible loop, checkpoints, evaluation, the run log."""
