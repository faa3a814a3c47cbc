"""Rewriting of descriptions by a language model, and captions by a captioner."""
