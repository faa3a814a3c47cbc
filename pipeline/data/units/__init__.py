"""Exactly-once work: a directory is made of units, each of which is written once, whatever dies."""
