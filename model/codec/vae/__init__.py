"""The trainable codec: a causal convolutional VAE whose decoder ends in an inverse STFT."""
