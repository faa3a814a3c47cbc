"""Description-style texts for every clip of every modality."""
