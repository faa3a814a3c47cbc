"""A prepared directory as one HTML page: what there is, how it sounds, what was refused and why."""
