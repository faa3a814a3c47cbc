"""Audio files as waveforms: what decodes them, and what can be wrong with them."""
