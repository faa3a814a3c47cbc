"""Signal processing of the laptop codec alone: phases, pitch and principal components."""
