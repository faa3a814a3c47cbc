"""Published autoencoders behind the codec protocol."""
