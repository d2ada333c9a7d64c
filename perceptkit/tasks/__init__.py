"""One file per task type, a whole vertical slice each."""
