"""Strategies that make a trained network that of a new domain, one file each."""
