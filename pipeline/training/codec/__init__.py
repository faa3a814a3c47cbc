"""Training of the audio codec."""
