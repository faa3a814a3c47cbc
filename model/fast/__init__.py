"""Faster forms of parts of the model: the same results, each provable against the plain form."""
