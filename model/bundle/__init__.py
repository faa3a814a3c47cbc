"""The product around the model: requests, limits, bundles of weights, and synthesis."""

DEFAULT_BUNDLE = "audiocalm-tiny"
"""Bundle that commands use where none is given; it comes with the package."""
