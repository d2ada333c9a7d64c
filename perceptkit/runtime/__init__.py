"""Loads an artifact or an exported file and runs it."""
