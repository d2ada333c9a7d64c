"""How choices are learned: one paper per file."""
