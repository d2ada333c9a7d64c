"""Supernet + plan -> small verified multi-head model."""
