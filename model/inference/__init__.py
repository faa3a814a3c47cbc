"""Sampling: options, cache, prefill and the block-by-block sampler."""
