"""Run folder -> tables, plots, one self-contained page. Nothing in here imports torch."""
