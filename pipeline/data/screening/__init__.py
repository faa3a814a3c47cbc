"""Which clips are refused, and why: faults of a recording, duplicates, evaluation sets."""
