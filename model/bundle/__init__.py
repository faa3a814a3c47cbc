"""The product around the model: requests, limits, bundles of weights, and synthesis."""
