"""What can be measured of a waveform: level, pitch, tempo, key, decay and the voice."""
