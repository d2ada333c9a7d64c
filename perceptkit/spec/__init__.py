"""YAML in, validated models out, every problem at once. Nothing in here imports torch."""
