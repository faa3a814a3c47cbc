"""Audio codecs behind one protocol: waveform to Gaussian latents and back."""
