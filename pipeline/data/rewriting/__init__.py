"""Descriptions worded by a language model, and captions by one that listens."""
