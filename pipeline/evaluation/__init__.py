"""Measures of codec and model, one file per metric family, and the report."""
